import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readSync } from 'node:fs'
import { startOrigin } from '@proxy/testing'
import { freePort } from '@proxy/testing/free-port'
import { expect, onTestFinished, test } from 'vitest'
import { ask, cleanEnv, entry, tempFolder, until } from './helpers.ts'

/**
 * Once the reader of the log had left (`| head -1`), or read no more and let the pipe fill, SIGTERM did not end the server: the last flush wrote again and
 * again, or blocked, with the event loop standing still.
 */
async function startWithPipe(requests: number) {
  const origin = await startOrigin((_, response) => response.writeHead(200, { 'cache-control': 'max-age=60' }).end('body'))
  onTestFinished(() => origin.close())
  const pipe = `${tempFolder()}/pipe`
  await once(spawn('mkfifo', [pipe]), 'exit')
  // Reading and writing: opening waits for nobody.
  const reader = openSync(pipe, 'r+')
  const writer = openSync(pipe, 'w')
  const port = await freePort()
  const child = spawn(process.execPath, [entry, '--upstream', origin.url, '--listen', `127.0.0.1:${port}`], { env: cleanEnv, stdio: ['ignore', writer, 'inherit'] })
  closeSync(writer)
  const exit = once(child, 'exit')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exit
  })
  const url = `http://127.0.0.1:${port}`
  await until(() =>
    ask(`${url}/_proxy/ready`).then(
      ({ status }) => status === 200,
      () => false
    )
  )
  const serve = async (): Promise<void> => {
    for (let i = 0; i < requests; i++) expect((await ask(`${url}/x${i}`)).status).toBe(200)
  }
  return { child, reader, serve, exit }
}

/** Well above what a pipe holds: 64 KiB. */
const MANY = 600

test.each([0, 50])('whose reader has left before %i requests: SIGTERM ends the server', async (requests) => {
  const { child, reader, serve, exit } = await startWithPipe(requests)
  readSync(reader, Buffer.alloc(65_536)) // that it listens: the server has written before
  closeSync(reader)
  await serve()
  child.kill('SIGTERM')
  expect(await exit).toEqual([0, null])
})

test('that nobody reads, and is full: SIGTERM ends the server', async () => {
  const { child, reader, serve, exit } = await startWithPipe(MANY)
  onTestFinished(() => closeSync(reader))
  await serve()
  child.kill('SIGTERM')
  expect(await exit).toEqual([0, null])
})

test('that is read late: every line arrives, in order', async () => {
  const { child, reader, serve, exit } = await startWithPipe(MANY)
  onTestFinished(() => closeSync(reader))
  await serve()
  child.kill('SIGTERM')
  let text = ''
  const chunk = Buffer.alloc(65_536)
  while (!text.includes('finishing what is under way')) {
    text += chunk.toString('latin1', 0, readSync(reader, chunk))
    // The server writes on meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  expect(await exit).toEqual([0, null])
  const lines = text.trimEnd().split('\n')
  const paths = lines.map((line) => JSON.parse(line) as { msg: string; path?: string }).filter(({ msg }) => msg === 'request')
  expect(paths.map(({ path }) => path)).toEqual(Array.from({ length: MANY }, (_, index) => `/x${index}`))
})
