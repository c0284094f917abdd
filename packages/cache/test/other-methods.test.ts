import type { RequestListener, ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { type Bench, startBench } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

async function get(path = '/a'): Promise<string> {
  const { status, body, cacheStatus } = await bench.get(path)
  return `${status} ${body.toString()} | ${cacheStatus.replace('proxy; ', '')}`
}

describe('POST', () => {
  const answering =
    (fields: Record<string, string>, status = 200): RequestListener =>
    (request, response: ServerResponse) => {
      if (request.method === 'POST') response.writeHead(status, fields).end('from POST')
      else response.writeHead(200, { 'cache-control': 'max-age=60' }).end('from GET')
    }

  test('is kept for GET where it says that it is what GET brings, and for how long', async () => {
    bench = await startBench(answering({ 'cache-control': 'max-age=60', 'content-location': '/a' }))
    await bench.get('/a')
    await bench.middleware.drain()
    const answer = await bench.ask('/a', { method: 'POST', body: 'x' })
    expect([answer.body.toString(), answer.cacheStatus]).toEqual(['from POST', 'proxy; fwd=method; stored'])
    await bench.middleware.drain()
    expect(await get()).toBe('200 from POST | hit; ttl=60')
    // A POST is never answered from it.
    await bench.ask('/a', { method: 'POST', body: 'x' })
    expect(bench.origin.requests.filter(({ method }) => method === 'POST')).toHaveLength(2)
  })

  test.each<[string, Record<string, string>, number]>([
    ['another location', { 'cache-control': 'max-age=60', 'content-location': '/b' }, 200],
    ['another origin', { 'cache-control': 'max-age=60', 'content-location': 'http://other.example/a' }, 200],
    ['no location', { 'cache-control': 'max-age=60' }, 200],
    ['no time', { 'content-location': '/a', 'last-modified': 'Mon, 01 Jan 2001 00:00:00 GMT' }, 200],
    ['no-store', { 'cache-control': 'max-age=60, no-store', 'content-location': '/a' }, 200],
    ['another status', { 'cache-control': 'max-age=60', 'content-location': '/a' }, 201]
  ])('is not kept: %s', async (_, fields, status) => {
    bench = await startBench(answering(fields, status))
    expect((await bench.ask('/a', { method: 'POST', body: 'x' })).body.toString()).toBe('from POST')
    await bench.middleware.drain()
    expect(await get()).toBe('200 from GET | fwd=uri-miss; stored; ttl=60')
  })

  test('a rule gives no lifetime to an answer to POST', async () => {
    bench = await startBench(answering({ 'content-location': '/a' }), { ttl: [{ ttlMs: 60_000 }] })
    await bench.ask('/a', { method: 'POST' })
    await bench.middleware.drain()
    expect(await get()).toContain('from GET')
  })
})

describe('HEAD of what is stale', () => {
  const start = async (head: Record<string, string>, status = 200): Promise<void> => {
    bench = await startBench((request, response) => {
      if (request.method === 'HEAD') response.writeHead(status, head).end()
      else if (request.headers['if-none-match'] === '"v1"') response.writeHead(304).end()
      else response.writeHead(200, { 'cache-control': 'max-age=60', etag: '"v1"', 'x-old': '1' }).end('text')
    })
    await bench.get('/a')
    await bench.middleware.drain()
    bench.clock.advance(61_000)
    await bench.ask('/a', { method: 'HEAD' })
    await bench.middleware.drain()
  }

  test('renews it where it is about the same', async () => {
    await start({ 'cache-control': 'max-age=100', etag: '"v1"', 'content-length': '4', 'x-new': '2' })
    const { status, headers, cacheStatus } = await bench.get('/a')
    expect([status, cacheStatus, headers['x-old'], headers['x-new'], headers['content-length']]).toEqual([200, 'proxy; hit; ttl=100', '1', '2', '4'])
  })

  test.each<[string, Record<string, string>]>([
    ['tag', { 'cache-control': 'max-age=100', etag: '"v2"' }],
    ['length', { 'cache-control': 'max-age=100', etag: '"v1"', 'content-length': '5' }],
    ['date', { 'cache-control': 'max-age=100', 'last-modified': 'Mon, 01 Jan 2001 00:00:00 GMT' }]
  ])('removes it where it shows another %s', async (_, head) => {
    await start(head)
    expect(await get()).toBe('200 text | fwd=uri-miss; stored; ttl=60')
  })

  // It was renewed all the same, and served to everybody with "private" in it.
  test.each(['private, max-age=100', 'no-store'])('removes it where it is %s now', async (control) => {
    await start({ 'cache-control': control, etag: '"v1"' })
    expect(await get()).toBe('200 text | fwd=uri-miss; stored; ttl=60')
  })

  test('an error says nothing about it', async () => {
    await start({ 'cache-control': 'max-age=100' }, 503)
    expect(await get()).toBe('200 text | fwd=stale; fwd-status=304; ttl=60')
  })
})
