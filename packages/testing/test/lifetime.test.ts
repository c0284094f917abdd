import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { rawExchange } from '../src/raw-client.ts'
import { isRunning } from './support/processes.ts'

// What a test process started must end with it, however it ends: nobody else would ever end it.
let temp: string
// What a failing test leaves is ended here.
const started: number[] = []
beforeEach(async () => {
  temp = await mkdtemp(join(tmpdir(), 'lifetime-'))
})
afterEach(async () => {
  for (const pid of started.splice(0)) if (isRunning(pid)) process.kill(pid, 'SIGKILL')
  await rm(temp, { recursive: true, force: true, maxRetries: 10 })
})

async function run(what: string, ending: string, detached = false) {
  const parent = spawn(process.execPath, [join(import.meta.dirname, 'support', 'run-services.ts'), what, ending], {
    stdio: ['ignore', 'pipe', 'ignore'],
    // a process group of its own
    detached,
    env: { ...process.env, TMPDIR: temp, NODE_OPTIONS: '', REDIS_URL: '', PROXY_TEST_SERVICES: '' }
  })
  if (parent.pid) started.push(parent.pid)
  const ended = once(parent, 'exit')
  const [line] = (await once(createInterface({ input: parent.stdout }), 'line')) as [string]
  const report = JSON.parse(line) as { pids: number[]; url?: string }
  started.push(...report.pids)
  return { parent, ended, ...report }
}

async function expectNothingLeft(pids: number[]) {
  await expect.poll(() => pids.filter(isRunning), { timeout: 10_000 }).toEqual([])
  await expect.poll(() => readdir(temp), { timeout: 10_000 }).toEqual([])
}

test.each(['redis', 'frozenRedis', 's3'])('%s ends when the process that started it is killed with SIGKILL', async (what) => {
  const { parent, ended, pids } = await run(what, 'wait')
  expect(pids.length).toBeGreaterThan(0)
  expect(pids.every(isRunning)).toBe(true)
  expect(await readdir(temp)).toHaveLength(1)
  parent.kill('SIGKILL')
  await ended
  await expectNothingLeft(pids)
})

test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('redis ends when the process that started it gets %s, and that process ends by the signal', async (signal) => {
  const { parent, ended, pids } = await run('redis', 'wait')
  parent.kill(signal)
  expect(await ended).toEqual([null, signal])
  await expectNothingLeft(pids)
})

test.each(['SIGINT', 'SIGKILL'] as const)('redis and its files are gone after %s to the whole process group, as a Ctrl-C does', async (signal) => {
  const { parent, ended, pids } = await run('redis', 'wait', true)
  process.kill(-(parent.pid ?? Number.NaN), signal)
  expect(await ended).toEqual([null, signal])
  await expectNothingLeft(pids)
})

test.each([
  ['exit', 3],
  ['throw', 1],
  ['return', 0]
])('redis ends when the process that started it ends by %s, and does not keep it from ending', async (ending, code) => {
  const { ended, pids } = await run('redis', ending)
  expect(await ended).toEqual([code, null])
  await expectNothingLeft(pids)
})

test('a shared server started on first use ends with its process', async () => {
  const { ended, url = '' } = await run('sharedRedis', 'return')
  expect(await ended).toEqual([0, null])
  await expectNothingLeft([])
  await expect(rawExchange(Number(new URL(url).port), 'PING\r\n')).rejects.toThrow(/ECONNREFUSED/)
})
