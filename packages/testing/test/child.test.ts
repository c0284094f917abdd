import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { startChild, untilReady } from '../src/child.ts'
import { runCommand } from '../src/run-command.ts'
import { createTempDir, type TempDir } from '../src/temp-dir.ts'
import { isRunning } from './support/processes.ts'

let temp: TempDir
let logPath: string
beforeEach(async () => {
  temp = await createTempDir('child-')
  logPath = join(temp.path, 'log')
})
afterEach(() => temp.remove())

const node = (script: string) => startChild({ command: process.execPath, args: ['-e', script], env: { WORD: 'hello' }, logPath })

test('is ready when the probe says so', async () => {
  const child = await node('console.log(process.env.WORD); setInterval(() => {}, 1000)')
  await untilReady(child, logPath, 30_000, async () => (await readFile(logPath, 'utf8')) === 'hello\n')
  expect(isRunning(child.pid)).toBe(true)
  await child.kill()
  await child.kill()
  expect(child.ended).toBe('SIGKILL')
  expect(isRunning(child.pid)).toBe(false)
})

test('one that ends early is reported with its log', async () => {
  const child = await node('console.error("no such thing"); process.exit(7)')
  await expect(untilReady(child, logPath, 30_000, async () => false)).rejects.toThrow(/ended \(exit code 7\): no such thing/)
})

test('one that never gets ready is killed', async () => {
  const child = await node('setInterval(() => {}, 1000)')
  await expect(untilReady(child, logPath, 100, async () => false)).rejects.toThrow(/was not ready after 100 ms/)
  expect(isRunning(child.pid)).toBe(false)
})

test('one that does not exist rejects', async () => {
  await expect(startChild({ command: join(temp.path, 'nothing'), args: [], logPath })).rejects.toThrow(/ENOENT/)
})

test('a command resolves with its output and rejects with its errors', async () => {
  expect(await runCommand(process.execPath, ['-p', 'process.env.WORD'], { env: { WORD: 'hello' } })).toBe('hello\n')
  await expect(runCommand(process.execPath, ['-e', 'console.error("no such thing"); process.exit(7)'])).rejects.toThrow(/no such thing/)
  await expect(runCommand(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { timeoutMs: 200 })).rejects.toThrow()
  await expect(runCommand(join(temp.path, 'nothing'), [])).rejects.toThrow(/ENOENT/)
})
