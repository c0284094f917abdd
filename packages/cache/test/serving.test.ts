import { afterEach, describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { type Bench, digest, startBench } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

const bytes = sampleBytes(300_000)
const modified = 'Mon, 05 Feb 2024 10:00:00 GMT'

/** An origin with one object, fresh for a minute, at every path. */
async function startObject(fields: Record<string, string> = {}, body: Buffer | string = bytes): Promise<void> {
  bench = await startBench((_, response) => {
    response.writeHead(200, { 'content-type': 'image/png', 'content-length': Buffer.byteLength(body), 'cache-control': 'max-age=60', etag: '"v1"', 'last-modified': modified, ...fields })
    response.end(body)
  })
}

describe('a miss, then hits', () => {
  test('same bytes, one request to the origin, Age and Cache-Status true', async () => {
    await startObject()
    const miss = await bench.get('/a')
    expect([miss.status, digest(miss.body), miss.cacheStatus, miss.headers.age]).toEqual([200, digest(bytes), 'proxy; fwd=uri-miss; stored; ttl=60', undefined])
    await bench.middleware.drain()
    bench.clock.advance(2500)
    const hit = await bench.get('/a')
    expect([hit.status, digest(hit.body), hit.cacheStatus, hit.headers.age]).toEqual([200, digest(bytes), 'proxy; hit; ttl=58', '2'])
    expect(hit.headers).toMatchObject({ 'content-type': 'image/png', 'content-length': '300000', etag: '"v1"', 'last-modified': modified, 'cache-control': 'max-age=60' })
    expect(bench.origin.requests.length).toBe(1)
    expect((await bench.get('/a?x')).cacheStatus).toContain('fwd=uri-miss')
    expect((await bench.get('/b')).cacheStatus).toContain('fwd=uri-miss')
  })

  test('of a body of unknown length, an empty one, a small one', async () => {
    bench = await startBench((request, response) => {
      response.writeHead(request.url === '/none' ? 204 : 200, { 'cache-control': 'max-age=60' })
      if (request.url === '/chunked') for (let i = 0; i < 10; i++) response.write(bytes.subarray(i * 1000, (i + 1) * 1000))
      else if (request.url === '/small') response.write('small')
      response.end()
    })
    for (const [path, status, body, length] of [
      ['/chunked', 200, bytes.subarray(0, 10_000), '10000'],
      ['/small', 200, Buffer.from('small'), '5'],
      ['/empty', 200, Buffer.alloc(0), '0'],
      ['/none', 204, Buffer.alloc(0), undefined]
    ] as const) {
      const miss = await bench.get(path)
      await bench.middleware.drain()
      const hit = await bench.get(path)
      expect([miss.status, digest(miss.body)]).toEqual([status, digest(body)])
      expect([hit.status, digest(hit.body), hit.headers['content-length']]).toEqual([status, digest(body), length])
      expect(hit.cacheStatus).toBe('proxy; hit; ttl=60')
    }
    expect(bench.origin.requests.length).toBe(4)
  })

  test('fields of one hop and of the origin, repeated lines', async () => {
    bench = await startBench((_, response) => {
      response.writeHead(200, ['Cache-Control', 'max-age=60', 'Link', '<a>', 'Link', '<b>', 'Connection', 'x-hop', 'X-Hop', '1', 'Age', '10', 'Cache-Status', 'inner; hit'])
      response.end('x')
    })
    const miss = await bench.get('/')
    await bench.middleware.drain()
    const hit = await bench.get('/')
    expect(miss.cacheStatus).toBe('inner; hit, proxy; fwd=uri-miss; stored; ttl=50')
    expect(miss.headers.age).toBe('10')
    expect(Object.keys((await bench.store.inner.get('default|http://example.org/'))?.meta.headers ?? {}).sort()).toEqual(['cache-control', 'date', 'link'])
    expect([hit.headers.link, hit.headers['x-hop'], hit.headers.age, hit.cacheStatus]).toEqual(['<a>, <b>', undefined, '10', 'proxy; hit; ttl=50'])
  })

  test('an answer without a Date gets one when it is stored', async () => {
    bench = await startBench((_, response) => {
      response.sendDate = false
      response.writeHead(200, { 'cache-control': 'max-age=60' })
      response.end('x')
    })
    await bench.get('/')
    await bench.middleware.drain()
    const stored = new Date(bench.clock.wallMs()).toUTCString()
    bench.clock.advance(5000)
    expect((await bench.get('/')).headers.date).toBe(stored)
  })
})

describe('what is not stored', () => {
  test.each([
    ['no-store', { 'cache-control': 'no-store, max-age=60' }, 'no-store'],
    ['private', { 'cache-control': 'private, max-age=60' }, 'private'],
    ['Set-Cookie', { 'cache-control': 'max-age=60', 'set-cookie': 'a=1' }, 'set-cookie'],
    ['Vary: *', { 'cache-control': 'max-age=60', vary: '*' }, 'vary-any'],
    ['nothing said', {}, 'no-freshness']
  ])('%s', async (_, fields, reason) => {
    bench = await startBench((__, response) => response.writeHead(200, fields as Record<string, string>).end('x'))
    for (let i = 0; i < 2; i++) {
      const answer = await bench.get('/')
      expect([answer.body.toString(), answer.cacheStatus]).toEqual(['x', `proxy; fwd=uri-miss; detail=${reason}`])
    }
    expect(bench.origin.requests.length).toBe(2)
    expect(bench.store.calls).not.toContain('put')
  })

  test('parts', async () => {
    bench = await startBench((_, response) => response.writeHead(206, { 'content-range': 'bytes 0-0/9', 'cache-control': 'max-age=60' }).end('x'))
    expect((await bench.get('/')).cacheStatus).toBe('proxy; fwd=uri-miss; detail=status')
  })

  test('what is larger than the cache takes', async () => {
    bench = await startBench(
      (request, response) => {
        response.writeHead(200, { 'cache-control': 'max-age=60', ...(request.url === '/declared' && { 'content-length': bytes.length }) })
        response.end(bytes)
      },
      { maxObjectBytes: 100_000 }
    )
    for (const path of ['/declared', '/chunked']) {
      for (let i = 0; i < 2; i++) {
        const answer = await bench.get(path)
        expect(digest(answer.body)).toBe(digest(bytes))
        expect(answer.cacheStatus).toMatch(path === '/declared' ? /detail=too-large$/ : /fwd=uri-miss/)
        await bench.middleware.drain()
      }
    }
    expect(bench.origin.requests.length).toBe(4)
  })
})

describe('requests that ask for something else than what is stored', () => {
  test('no-store is passed, and its answer is not stored', async () => {
    await startObject()
    expect((await bench.get('/a', { 'cache-control': 'no-store' })).cacheStatus).toBe('proxy; fwd=uri-miss; detail=request-no-store')
    expect((await bench.get('/a')).cacheStatus).toContain('stored')
    await bench.middleware.drain()
    // What is there may be used.
    expect((await bench.get('/a', { 'cache-control': 'no-store' })).cacheStatus).toContain('hit')
  })

  test.each([
    ['no-cache', { 'cache-control': 'no-cache' }],
    ['Pragma', { pragma: 'no-cache' }],
    // Only the text "no-cache" used to count.
    ['Pragma in another case', { pragma: 'No-Cache' }],
    ['Pragma with another directive', { pragma: 'x, no-cache' }],
    ['max-age', { 'cache-control': 'max-age=5' }],
    ['min-fresh', { 'cache-control': 'min-fresh=55' }]
  ])('%s asks the origin although an entry is fresh, and renews that', async (_, fields) => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    bench.clock.advance(10_000)
    expect((await bench.get('/a', fields)).cacheStatus).toBe('proxy; fwd=request; stored; ttl=60')
    await bench.middleware.drain()
    expect((await bench.get('/a')).headers.age).toBe('0')
    expect(bench.origin.requests[1]?.rawHeaders.join().toLowerCase()).toContain('if-none-match,"v1"')
    expect(bench.origin.requests.length).toBe(2)
  })

  test('Pragma says nothing beside Cache-Control', async () => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    expect((await bench.get('/a', { pragma: 'no-cache', 'cache-control': 'max-age=60' })).cacheStatus).toContain('hit')
  })

  test('only-if-cached: from the store or not at all', async () => {
    await startObject()
    const nothing = await bench.get('/a', { 'cache-control': 'only-if-cached' })
    expect([nothing.status, bench.origin.requests.length]).toEqual([504, 0])
    await bench.get('/a')
    await bench.middleware.drain()
    expect((await bench.get('/a', { 'cache-control': 'only-if-cached' })).cacheStatus).toContain('hit')
    bench.clock.advance(60_000)
    expect((await bench.get('/a', { 'cache-control': 'only-if-cached' })).status).toBe(504)
    expect(bench.origin.requests.length).toBe(1)
  })

  test('a GET with a body is none of the cache’s business', async () => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    const answer = await bench.ask('/a', { headers: { 'content-length': '2' }, body: 'hi' })
    expect(answer.cacheStatus).toBe('proxy; fwd=bypass')
    expect(bench.origin.requests[1]?.body.toString()).toBe('hi')
  })
})

describe('HEAD', () => {
  test('is answered from what a GET stored', async () => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    const answer = await bench.ask('/a', { method: 'HEAD' })
    expect([answer.status, answer.body.length, answer.headers['content-length'], answer.headers.etag, answer.cacheStatus]).toEqual([200, 0, '300000', '"v1"', 'proxy; hit; ttl=60'])
    expect((await bench.ask('/a', { method: 'HEAD', headers: { 'if-none-match': '"v1"' } })).status).toBe(304)
    expect((await bench.ask('/a', { method: 'HEAD', headers: { range: 'bytes=0-1' } })).status).toBe(200)
    expect(bench.origin.requests.length).toBe(1)
  })

  test('goes to the origin as HEAD when nothing is stored, and stores nothing', async () => {
    await startObject()
    const answer = await bench.ask('/a', { method: 'HEAD' })
    expect([answer.status, answer.headers['content-length'], answer.cacheStatus]).toEqual([200, '300000', 'proxy; fwd=uri-miss; detail=method'])
    expect((await bench.get('/a')).cacheStatus).toContain('uri-miss')
    expect(bench.origin.requests.map(({ method }) => method)).toEqual(['HEAD', 'GET'])
  })
})

describe('conditions of the client', () => {
  test.each([
    [{ 'if-none-match': '"v1"' }, 304],
    [{ 'if-none-match': 'W/"v1", "x"' }, 304],
    [{ 'if-none-match': '*' }, 304],
    [{ 'if-none-match': '"v2"' }, 200],
    [{ 'if-modified-since': modified }, 304],
    [{ 'if-modified-since': 'Sun, 04 Feb 2024 10:00:00 GMT' }, 200],
    [{ 'if-none-match': '"v2"', 'if-modified-since': modified }, 200],
    [{ 'if-none-match': '"v1"', range: 'bytes=0-1' }, 304]
  ])('%j', async (fields, status) => {
    await startObject()
    const miss = 'range' in fields ? undefined : await bench.get('/a', fields as unknown as Record<string, string>)
    if (miss === undefined) await bench.get('/a')
    else expect(miss.status).toBe(status)
    await bench.middleware.drain()
    const hit = await bench.get('/a', fields as unknown as Record<string, string>)
    expect([hit.status, hit.cacheStatus]).toEqual([status, 'proxy; hit; ttl=60'])
    if (status === 304) {
      expect(hit.headers).toMatchObject({ etag: '"v1"', 'cache-control': 'max-age=60', 'last-modified': modified, age: '0' })
      expect([hit.headers['content-length'], hit.headers['content-type'], hit.body.length]).toEqual([undefined, undefined, 0])
    } else expect(digest(hit.body)).toBe(digest(bytes))
    // A condition that was true for the client must not have left a 304 in the store: the fill asked for the whole.
    expect((await bench.get('/a')).body.length).toBe(bytes.length)
    expect(bench.origin.requests.length).toBe(1)
    expect(bench.origin.requests[0]?.rawHeaders.join().toLowerCase()).not.toMatch(/if-none-match|if-modified-since/)
  })

  test('are not applied to errors', async () => {
    bench = await startBench((_, response) => response.writeHead(404, { 'cache-control': 'max-age=60', etag: '"v1"' }).end('none'))
    expect((await bench.get('/a', { 'if-none-match': '"v1"' })).status).toBe(404)
    await bench.middleware.drain()
    expect((await bench.get('/a', { 'if-none-match': '"v1"' })).status).toBe(404)
  })
})

describe('ranges', () => {
  test.each([
    ['bytes=0-9', 0, 9],
    ['bytes=100000-200000', 100_000, 200_000],
    ['bytes=299999-', 299_999, 299_999],
    ['bytes=-5', 299_995, 299_999],
    ['bytes=65535-65536', 65_535, 65_536],
    ['bytes=0-999999999', 0, 299_999]
  ])('%s', async (range, start, end) => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    const answer = await bench.get('/a', { range })
    expect([answer.status, answer.headers['content-range'], answer.headers['content-length'], answer.cacheStatus]).toEqual([
      206,
      `bytes ${start}-${end}/300000`,
      String(end - start + 1),
      'proxy; hit; ttl=60'
    ])
    expect(digest(answer.body)).toBe(digest(bytes.subarray(start, end + 1)))
    expect(bench.origin.requests.length).toBe(1)
  })

  test('of a small body, kept as text', async () => {
    await startObject({}, '0123456789')
    await bench.get('/a')
    await bench.middleware.drain()
    expect((await bench.get('/a', { range: 'bytes=3-5' })).body.toString()).toBe('345')
  })

  test('beyond the end: 416', async () => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    const answer = await bench.get('/a', { range: 'bytes=300000-' })
    expect([answer.status, answer.headers['content-range'], answer.body.length, answer.headers['content-length'], answer.headers['content-type']]).toEqual([416, 'bytes */300000', 0, '0', undefined])
  })

  test.each(['bytes=0-1,x', 'bytes=5-1', 'lines=0-1', 'nonsense'])('%s is answered whole', async (range) => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    const answer = await bench.get('/a', { range })
    expect([answer.status, answer.body.length]).toEqual([200, 300_000])
  })

  test.each([
    ['"v1"', 206],
    ['"v2"', 200],
    ['W/"v1"', 200],
    [modified, 206],
    ['Tue, 06 Feb 2024 10:00:00 GMT', 200]
  ])('If-Range: %s', async (ifRange, status) => {
    await startObject()
    await bench.get('/a')
    await bench.middleware.drain()
    expect((await bench.get('/a', { range: 'bytes=0-1', 'if-range': ifRange })).status).toBe(status)
  })

  test('a range of what is not stored goes to the origin as it is, and is not stored', async () => {
    bench = await startBench((request, response) => {
      if (request.headers.range === undefined) response.writeHead(200, { 'cache-control': 'max-age=60' }).end('0123456789')
      else response.writeHead(206, { 'cache-control': 'max-age=60', 'content-range': 'bytes 2-4/10' }).end('234')
    })
    const answer = await bench.get('/a', { range: 'bytes=2-4', 'if-range': '"x"' })
    expect([answer.status, answer.body.toString(), answer.cacheStatus]).toEqual([206, '234', 'proxy; fwd=uri-miss; detail=range'])
    expect(bench.origin.requests[0]?.rawHeaders.join().toLowerCase()).toContain('if-range,"x"')
    expect((await bench.get('/a')).body.toString()).toBe('0123456789')
  })

  test('errors are not cut into parts', async () => {
    bench = await startBench((_, response) => response.writeHead(404, { 'cache-control': 'max-age=60' }).end('nothing here'))
    await bench.get('/a')
    await bench.middleware.drain()
    const answer = await bench.get('/a', { range: 'bytes=0-1' })
    expect([answer.status, answer.body.toString()]).toEqual([404, 'nothing here'])
  })
})
