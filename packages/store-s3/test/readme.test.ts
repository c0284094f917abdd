import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { readmeExamples, sharedS3 } from '@proxy/testing'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { S3Store } from '../src/index.ts'
import { patient, service } from './support.ts'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))

/** A busy machine may miss the default deadline, which is not what the examples are about. */
const unhurried = { 'new S3Store({': `new S3Store({ firstByteTimeoutMs: ${patient.firstByteTimeoutMs},` }

beforeAll(async () => {
  const at = await service()
  await (await sharedS3()).createBucket('http-cache')
  vi.stubEnv('S3_ENDPOINT', at.endpoint)
  vi.stubEnv('S3_ACCESS_KEY', at.accessKeyId)
  vi.stubEnv('S3_SECRET_KEY', at.secretAccessKey)
})
afterAll(() => vi.unstubAllEnvs())

test('every block of code is an example that is run here', () => {
  expect(examples.names).toEqual(['alone', 'node', 'hono'])
})

test('alone', async () => {
  const { stored, text, store } = await examples.run('alone', ['stored', 'text', 'store'], unhurried)
  expect([stored, text]).toEqual([true, 'Hello'])
  await (store as S3Store).close()
})

test('in node:http', async () => {
  const example = await examples.run('node', ['server', 'store'], unhurried)
  const server = example.server as Server
  const store = example.store as S3Store
  try {
    if (!server.listening) await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/${Date.now()}`
    const answers = [await (await fetch(url)).text()]
    await vi.waitUntil(() => store.stats().writes > 0, { timeout: 10_000 })
    answers.push(await (await fetch(url)).text())
    expect(answers).toEqual(['answer 1', 'answer 1'])
    expect(store.stats().hits).toBeGreaterThan(0)
  } finally {
    server.close()
    server.closeAllConnections()
    await store.close()
  }
})

test('in Hono', async () => {
  const example = await examples.run('hono', ['app', 'store'], unhurried)
  const app = example.app as { request(path: string): Promise<Response> }
  const store = example.store as S3Store
  const path = `http://example.org/images/${Date.now()}.svg`
  const first = await app.request(path)
  expect([first.status, first.headers.get('content-type'), await first.text()]).toEqual([200, 'image/svg+xml', '<svg/>'])
  await vi.waitUntil(() => store.stats().writes > 0, { timeout: 10_000 })
  expect(await (await app.request(path)).text()).toBe('<svg/>')
  expect(store.stats().hits).toBeGreaterThan(0)
  await store.close()
})

test('the table names every option, with its default', async () => {
  const { resolveOptions } = await import('../src/options.ts')
  const resolved = resolveOptions({ bucket: 'b' })
  const { text } = examples
  const rows = text.slice(text.indexOf('## Options'), text.indexOf('`stats()`')).replace(/ +/g, ' ')
  const named = new Set([...rows.matchAll(/`(\w+)`/g)].map((match) => match[1]))
  for (const option of [...Object.keys(resolved), 'accessKeyId', 'secretAccessKey', 'endpoint', 'breaker']) {
    if (option !== 'failureThreshold' && option !== 'openMs') expect([option, named.has(option)]).toEqual([option, true])
  }
  for (const option of ['firstByteTimeoutMs', 'idleTimeoutMs', 'requestTimeoutMs', 'connectTimeoutMs', 'maxReadConnections', 'maxWriteConnections', 'closeTimeoutMs', 'maxAttempts'] as const) {
    expect(rows).toContain(`| \`${option}\` | ${resolved[option]} |`)
  }
})
