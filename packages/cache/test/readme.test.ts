import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createRequest, type Middleware } from '@proxy/pipeline'
import { readmeExamples } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import type { MemoryStore } from '../src/index.ts'
import { ask, headers } from './support.ts'

/** Cases that the example registers with what it takes for node:test. */
const cases: [string, () => Promise<void>][] = []

const examples = readmeExamples(new URL('../README.md', import.meta.url), async (from) =>
  from === 'node:test' ? { test: (name: string, run: () => Promise<void>) => cases.push([name, run]) } : import(/* @vite-ignore */ from)
)

test('every block of code is an example that is run here', () => {
  expect(examples.names).toEqual(['alone', 'node', 'express', 'hono', 'explain', 'preload', 'tiers', 'conformance', 'purgeLog'])
})

test('alone', async () => {
  const { stored, text, entries } = await examples.run('alone', ['stored', 'text', 'entries'])
  expect([stored, text, entries]).toEqual([true, 'hello', 1])
})

test('in node:http', async () => {
  const server = (await examples.run('node', ['server'])).server as Server
  try {
    if (!server.listening) await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const first = await ask(port, '/a')
    expect(first.cacheStatus).toMatch(/^proxy; fwd=uri-miss; stored; ttl=(60|5\d)$/)
    const second = await ask(port, '/a')
    expect(second.body.toString()).toBe(first.body.toString())
    expect(second.cacheStatus).toMatch(/^proxy; hit; ttl=/)
    expect((await ask(port, '/b')).body.toString()).not.toBe(first.body.toString())
  } finally {
    server.close()
    server.closeAllConnections()
  }
})

test('in Hono', async () => {
  const app = (await examples.run('hono', ['app'])).app as { request(path: string): Promise<Response> }
  expect(await (await app.request('/')).text()).toBe('not cached')
  const first = await app.request('/images/x.png')
  expect([first.status, await first.text()]).toEqual([404, 'no such image'])
  expect(first.headers.get('cache-status')).toMatch(/^proxy; fwd=uri-miss; stored; ttl=(60|5\d)$/)
  const second = await app.request('/images/x.png')
  expect([second.status, await second.text()]).toEqual([404, 'no such image'])
  expect(second.headers.get('cache-status')).toMatch(/^proxy; hit; ttl=(60|5\d); detail=negative$/)
})

test('tiers', async () => {
  const example = await examples.run('tiers', ['cached', 'failures', 'responses'])
  const [failures, responses] = [example.failures as MemoryStore, example.responses as MemoryStore]
  const handler = (example.cached as Middleware)(async ({ target }) => ({ status: target === '/none' ? 404 : 200, headers: headers({ 'cache-control': 'max-age=60' }), body: Buffer.from('x') }))
  for (const target of ['/none', '/a']) {
    await handler(createRequest({ target }))
    const hit = await handler(createRequest({ target }))
    expect(hit.headers['cache-status']).toContain('hit')
  }
  expect([failures.stats().entries, responses.stats().entries]).toEqual([1, 1])
})

test('in Express', async () => {
  const { app } = await examples.run('express', ['app'])
  const server = createServer(app as RequestListener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const answers = [await ask(port, '/quotes/a'), await ask(port, '/quotes/a'), await ask(port, '/')]
  expect(answers.map(({ body, cacheStatus }) => [body.toString(), cacheStatus])).toEqual([
    ['a quote for /a', 'proxy; fwd=uri-miss; stored; ttl=60'],
    ['a quote for /a', 'proxy; hit; ttl=60'],
    ['not cached', '']
  ])
  server.close()
  await once(server, 'close')
})

test('explain', async () => {
  const { why } = await examples.run('explain', ['why'])
  expect(why).toMatchObject({ decision: 'fetch', because: 'uri-miss', url: 'https://images.example.org/a.png', answer: { stored: false, reason: 'private' } })
})

test('preload', async () => {
  expect((await examples.run('preload', ['summary'])).summary).toEqual({ requested: 2, cached: 2, notStored: 0, failed: 0 })
})

describe('a store of your own', async () => {
  await examples.run('conformance')
  test('the suite has cases', () => expect(cases.length).toBeGreaterThan(40))
  await examples.run('purgeLog')
  test('that of purge logs too', () => expect(cases.filter(([name]) => name.includes('purge')).length).toBeGreaterThan(10))
  for (const [name, run] of cases) test(name, run)
})

describe('tables', () => {
  test('list every option of cache(), with its default', () => {
    const source = readFileSync(new URL('../src/middleware.ts', import.meta.url), 'utf8')
    const options = /export interface CacheOptions \{([\s\S]*?)^\}/m.exec(source)?.[1] ?? ''
    for (const [, name] of options.matchAll(/^ {2}readonly (\w+)/gm)) expect(examples.text).toMatch(new RegExp(`^\\| \`${name as string}[\`.]`, 'm'))
  })

  test('list every reason not to store', () => {
    const source = readFileSync(new URL('../src/storability.ts', import.meta.url), 'utf8')
    const reasons = /export type NotStoredReason =([^;]*?)\n\n/.exec(source)?.[1] ?? ''
    for (const [, reason] of reasons.matchAll(/'([\w-]+)'/g)) expect(examples.text).toContain(`\`${reason as string}\``)
  })
})
