import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { type Bench, startBench, until } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

async function get(path = '/a', fields: Record<string, string> = {}): Promise<[string, string]> {
  const answer = await bench.get(path, fields)
  await bench.middleware.drain()
  return [answer.body.toString(), answer.cacheStatus.replace(/; ttl=\d+/, '')]
}

describe('a request that changes something', () => {
  test.each([
    ['POST', 200, true],
    ['PUT', 204, true],
    ['DELETE', 200, true],
    ['PATCH', 303, true],
    // Of an unknown method nobody knows that it is safe.
    ['MKACTIVITY', 200, true],
    ['POST', 400, false],
    ['PUT', 500, false],
    ['OPTIONS', 200, false],
    ['SEARCH', 200, false]
  ])('%s answered %d: forgets what is stored: %s', async (method, status, forgets) => {
    let version = 1
    bench = await startBench((request, response) => {
      if (request.method === 'GET') response.writeHead(200, { 'cache-control': 'max-age=60', vary: 'accept' }).end(`version ${version}`)
      else response.writeHead(status, { location: '/elsewhere', 'cache-control': 'max-age=60' }).end()
    })
    await get()
    await get('/a', { accept: 'x' })
    await get('/b')
    version = 2
    expect((await bench.ask('/a', { method })).cacheStatus).toBe('proxy; fwd=method')
    expect(await get()).toEqual(forgets ? ['version 2', 'proxy; fwd=uri-miss; stored'] : ['version 1', 'proxy; hit'])
    expect((await get('/a', { accept: 'x' }))[0]).toBe(forgets ? 'version 2' : 'version 1')
    expect(await get('/b')).toEqual(['version 1', 'proxy; hit'])
  })

  test.each([
    ['location', '/b', true],
    ['location', 'b', true],
    ['content-location', 'http://example.org/b', true],
    ['location', 'http://example.org:80/x/../b', true],
    // Another origin has no say about what is stored here (RFC 9111 section 4.4).
    ['location', 'http://other.example/b', false],
    ['content-location', 'https://example.org/b', false],
    ['location', 'http://[broken', false]
  ])('forgets what its %s names: %s: %s', async (field, reference, forgets) => {
    bench = await startBench((request, response) => {
      if (request.method === 'GET') response.writeHead(200, { 'cache-control': 'max-age=60' }).end('text')
      else response.writeHead(201, { [field]: reference }).end()
    })
    await get('/b')
    await bench.ask('/a', { method: 'POST' })
    expect((await get('/b'))[1]).toBe(forgets ? 'proxy; fwd=uri-miss; stored' : 'proxy; hit')
  })

  test('is answered although the store cannot forget', async () => {
    bench = await startBench((_, response) => response.end('done'))
    const broken = new Error('down')
    bench.store.breakDelete = () => broken
    expect((await bench.ask('/a', { method: 'POST', body: 'x' })).body.toString()).toBe('done')
    expect(bench.storeErrors).toEqual([broken])
  })

  // What had been asked for before the change was stored after it, and served for as long as it was fresh.
  test('also forgets what is on its way: nobody new gets it, and it is not kept', async () => {
    let held: ServerResponse | undefined
    let version = 1
    bench = await startBench((request, response) => {
      if (request.method === 'POST') {
        version = 2
        response.end()
      } else {
        response.writeHead(200, { 'cache-control': 'max-age=60' })
        response.write(`version ${version}`)
        if (version === 1) held = response
        else response.end()
      }
    })
    const before = bench.get('/a')
    await until(() => held !== undefined)
    await bench.ask('/a', { method: 'POST' })
    const after = bench.get('/a')
    await until(() => bench.origin.requests.length === 3)
    expect((await after).body.toString()).toBe('version 2')
    held?.end()
    expect((await before).body.toString()).toBe('version 1')
    await bench.middleware.drain()
    expect((await get())[0]).toBe('version 2')
  })
})
