import { ProxyError } from '@proxy/pipeline'
import { afterEach, describe, expect, test } from 'vitest'
import { type Bench, startBench } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

async function get(path = '/a', fields: Record<string, string> = {}): Promise<[number, string]> {
  const answer = await bench.get(path, fields)
  await bench.middleware.drain()
  return [answer.status, answer.cacheStatus]
}

describe('negative TTLs', () => {
  test('remember answers by status, for that long', async () => {
    bench = await startBench((request, response) => response.writeHead(Number(request.url?.slice(1))).end('no'), { negative: { statuses: { 404: 10_000, '5xx': 1000 } } })
    expect(await get('/404')).toEqual([404, 'proxy; fwd=uri-miss; stored; ttl=10'])
    expect(await get('/404')).toEqual([404, 'proxy; hit; ttl=10; detail=negative'])
    expect(await get('/503')).toEqual([503, 'proxy; fwd=uri-miss; stored; ttl=1'])
    expect(await get('/503')).toEqual([503, 'proxy; hit; ttl=1; detail=negative'])
    expect(await get('/403')).toEqual([403, 'proxy; fwd=uri-miss; detail=status'])
    bench.clock.advance(1000)
    expect(await get('/503')).toEqual([503, 'proxy; fwd=stale; stored; ttl=1'])
    expect((await get('/404'))[1]).toContain('hit')
    bench.clock.advance(9000)
    expect((await get('/404'))[1]).toContain('fwd=stale')
  })

  test('say when to come back', async () => {
    bench = await startBench((_, response) => response.writeHead(503).end(), { negative: { statuses: { 503: 30_000 } } })
    expect((await bench.get('/a')).headers['retry-after']).toBeUndefined()
    await bench.middleware.drain()
    bench.clock.advance(10_000)
    expect((await bench.get('/a')).headers['retry-after']).toBe('20')
  })

  test('no-store, private and Set-Cookie still hold', async () => {
    bench = await startBench((request, response) => response.writeHead(404, JSON.parse(decodeURIComponent(request.url?.slice(2) ?? ''))).end(), { negative: { statuses: { 404: 10_000 } } })
    const path = (fields: object): string => `/?${encodeURIComponent(JSON.stringify(fields))}`
    expect((await get(path({ 'cache-control': 'no-store' })))[1]).toContain('detail=no-store')
    expect((await get(path({ 'cache-control': 'private' })))[1]).toContain('detail=private')
    expect((await get(path({ 'set-cookie': 'a=1' })))[1]).toContain('detail=set-cookie')
    expect((await get(path({ 'cache-control': 'max-age=1' })))[1]).toContain('ttl=10')
  })

  test('by default only what the origin allows is remembered', async () => {
    bench = await startBench((request, response) => response.writeHead(404, request.url === '/b' ? { 'cache-control': 'max-age=5' } : {}).end())
    expect((await get())[1]).toContain('detail=no-freshness')
    expect((await get('/b'))[1]).toContain('stored; ttl=5')
  })

  test('a success takes the place of a remembered failure', async () => {
    let found = false
    bench = await startBench((_, response) => response.writeHead(found ? 200 : 404, found ? { 'cache-control': 'max-age=60' } : {}).end(), { negative: { statuses: { 404: 10_000 } } })
    await get()
    found = true
    expect((await get())[0]).toBe(404)
    expect(await get('/a', { 'cache-control': 'no-cache' })).toEqual([200, 'proxy; fwd=request; stored; ttl=60'])
    expect(await get()).toEqual([200, 'proxy; hit; ttl=60'])
  })
})

describe('an origin that cannot be reached', () => {
  test('is asked every time by default', async () => {
    bench = await startBench((request) => request.socket.destroy())
    expect((await get())[0]).toBe(502)
    expect((await get())[0]).toBe(502)
    expect(bench.origin.requests.length).toBe(2)
  })

  test('is left alone for connectErrorMs', async () => {
    bench = await startBench((request) => request.socket.destroy(), { negative: { connectErrorMs: 2000, statuses: { '5xx': 600_000 } } })
    expect((await get())[0]).toBe(502)
    const remembered = await bench.get('/a')
    expect([remembered.status, remembered.body.toString(), remembered.cacheStatus, remembered.headers['retry-after']]).toEqual([502, 'Bad Gateway\n', 'proxy; hit; ttl=2; detail=negative', '2'])
    expect(remembered.headers).toMatchObject({ 'cache-control': 's-maxage=2, max-age=0', 'proxy-status': 'proxy; error=connection_refused' })
    expect(bench.origin.requests.length).toBe(1)
    // Not for the ten minutes that a 502 sent by the origin would get.
    bench.clock.advance(2000)
    expect((await get())[0]).toBe(502)
    expect(bench.origin.requests.length).toBe(2)
  })

  test('is left alone although it took longer to find out than that is remembered', async () => {
    bench = await startBench(
      (request) => {
        bench.clock.advance(30_000)
        request.socket.destroy()
      },
      { negative: { connectErrorMs: 2000 } }
    )
    await get()
    expect((await get())[1]).toBe('proxy; hit; ttl=2; detail=negative')
  })

  test('does not cost an entry that could still be confirmed, or that one client alone did not want', async () => {
    let fails = false
    const fields: Record<string, string> = { 'cache-control': 'max-age=60' }
    bench = await startBench((request, response) => (fails ? request.socket.destroy() : response.writeHead(200, fields).end('text')), {
      negative: { connectErrorMs: 2000 },
      stale: { ifUnreachableMs: 0 }
    })
    await get('/fresh')
    fields.etag = '"v1"'
    await get('/confirmable')
    fails = true
    expect((await get('/fresh', { 'cache-control': 'no-cache' }))[0]).toBe(502)
    expect(await get('/fresh')).toEqual([200, 'proxy; hit; ttl=60'])
    bench.clock.advance(61_000)
    expect((await get('/confirmable'))[0]).toBe(502)
    fails = false
    expect((await get('/confirmable'))[0]).toBe(200)
  })

  test('failures that are not the origin’s are not remembered', async () => {
    bench = await startBench((_, response) => response.end('x'), {
      negative: { connectErrorMs: 2000 },
      wrap: (handler) => handler
    })
    const error = new ProxyError('no', { code: 'X', status: 500, source: 'proxy' })
    const handler = bench.middleware(() => Promise.reject(error))
    const { createRequest } = await import('@proxy/pipeline')
    await expect(handler(createRequest({ target: '/own' }))).rejects.toBe(error)
    await bench.middleware.drain()
    expect(bench.store.calls).not.toContain('put')
  })
})

describe('TTL rules', () => {
  test('by content type, counted from the arrival', async () => {
    bench = await startBench((request, response) => response.writeHead(200, { 'content-type': request.url?.slice(1), age: '86400' }).end('x'), {
      ttl: [
        { contentType: 'image/*', ttlMs: 3_600_000 },
        { contentType: ['application/json', '*/*+json'], ttlMs: 60_000 }
      ]
    })
    expect((await get('/image/png'))[1]).toBe('proxy; fwd=uri-miss; stored; ttl=3600')
    expect((await get('/application/ld+json'))[1]).toBe('proxy; fwd=uri-miss; stored; ttl=60')
    expect((await get('/text/html'))[1]).toBe('proxy; fwd=uri-miss; detail=no-freshness')
    bench.clock.advance(60_000)
    expect((await bench.get('/image/png')).headers.age).toBe('86460')
    expect((await get('/image/png'))[1]).toBe('proxy; hit; ttl=3540')
    expect((await get('/application/ld+json'))[1]).toContain('fwd=stale')
  })
})
