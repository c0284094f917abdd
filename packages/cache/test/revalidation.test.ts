import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterEach, expect, test } from 'vitest'
import { type Bench, startBench } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

const condition = (request: IncomingMessage): string | undefined => request.headers['if-none-match']

/** Fills the store with `/a` and lets it go stale. */
async function goStale(): Promise<void> {
  expect((await bench.get('/a')).status).toBe(200)
  await bench.middleware.drain()
  bench.clock.advance(61_000)
}

function whole(response: ServerResponse, body: string, fields: Record<string, string> = {}): void {
  response.writeHead(200, { 'cache-control': 'max-age=60', etag: '"v1"', 'x-first': 'kept', ...fields }).end(body)
}

test('a stale entry is confirmed by a 304, renewed, and then fresh again', async () => {
  bench = await startBench((request, response) => {
    if (condition(request) === '"v1"') response.writeHead(304, { etag: '"v1"', 'cache-control': 'max-age=120', 'x-second': 'new' }).end()
    else whole(response, 'text')
  })
  await goStale()
  const confirmed = await bench.get('/a')
  expect([confirmed.status, confirmed.body.toString(), confirmed.cacheStatus, confirmed.headers.age]).toEqual([200, 'text', 'proxy; fwd=stale; fwd-status=304; ttl=120', '0'])
  expect(confirmed.headers).toMatchObject({ 'x-first': 'kept', 'x-second': 'new', 'cache-control': 'max-age=120' })
  await bench.middleware.drain()
  bench.clock.advance(100_000)
  const hit = await bench.get('/a')
  expect([hit.body.toString(), hit.cacheStatus, hit.headers['x-second']]).toEqual(['text', 'proxy; hit; ttl=20', 'new'])
  expect(bench.origin.requests.length).toBe(2)
})

test('a 304 without a Date renews the Date all the same', async () => {
  bench = await startBench((request, response) => {
    response.sendDate = false
    if (condition(request) === '"v1"') response.writeHead(304).end()
    else whole(response, 'text', { date: new Date(bench.clock.wallMs()).toUTCString() })
  })
  await goStale()
  expect((await bench.get('/a')).headers.date).toBe(new Date(bench.clock.wallMs()).toUTCString())
})

test('by date, where there is no entity tag', async () => {
  const modified = 'Mon, 05 Feb 2024 10:00:00 GMT'
  bench = await startBench((request, response) => {
    if (request.headers['if-modified-since'] === modified) response.writeHead(304).end()
    else response.writeHead(200, { 'cache-control': 'max-age=60', 'last-modified': modified }).end('text')
  })
  await goStale()
  expect((await bench.get('/a')).cacheStatus).toBe('proxy; fwd=stale; fwd-status=304; ttl=60')
})

test('the client’s own conditions do not reach the origin, and are answered from the renewed entry', async () => {
  bench = await startBench((request, response) => {
    if (condition(request) === '"v1"') response.writeHead(304).end()
    else whole(response, 'text')
  })
  await goStale()
  expect((await bench.get('/a', { 'if-none-match': '"v1"' })).status).toBe(304)
  await bench.middleware.drain()
  bench.clock.advance(61_000)
  const other = await bench.get('/a', { 'if-none-match': '"other"' })
  expect([other.status, other.body.toString()]).toEqual([200, 'text'])
  expect(bench.origin.requests.map(({ rawHeaders }) => rawHeaders[rawHeaders.findIndex((name) => name.toLowerCase() === 'if-none-match') + 1])).toEqual([expect.anything(), '"v1"', '"v1"'])
})

test('the origin has something new', async () => {
  let version = 1
  bench = await startBench((_, response) => whole(response, `text ${version}`, { etag: `"v${version}"` }))
  await goStale()
  version = 2
  const answer = await bench.get('/a')
  expect([answer.body.toString(), answer.cacheStatus]).toEqual(['text 2', 'proxy; fwd=stale; stored; ttl=60'])
  await bench.middleware.drain()
  expect((await bench.get('/a')).body.toString()).toBe('text 2')
})

test('no-cache and max-age=0 with a validator: stored, and confirmed every time', async () => {
  for (const control of ['no-cache, max-age=60', 'max-age=0']) {
    bench = await startBench((request, response) => {
      if (condition(request) === '"v1"') response.writeHead(304).end()
      else whole(response, 'text', { 'cache-control': control })
    })
    await bench.get('/a')
    await bench.middleware.drain()
    for (let i = 0; i < 2; i++) {
      const answer = await bench.get('/a')
      expect([answer.body.toString(), answer.cacheStatus]).toEqual(['text', 'proxy; fwd=stale; fwd-status=304; ttl=0'])
      await bench.middleware.drain()
    }
    expect(bench.origin.requests.length).toBe(3)
    if (control !== 'max-age=0') await bench.close()
  }
})

test('an entry that cannot be confirmed is fetched anew, without conditions', async () => {
  bench = await startBench((request, response) => {
    expect(condition(request)).toBeUndefined()
    response.writeHead(200, { 'cache-control': 'max-age=60' }).end('text')
  })
  await goStale()
  expect((await bench.get('/a')).cacheStatus).toBe('proxy; fwd=stale; stored; ttl=60')
})

test('a stale entry is kept for keepStaleMs, then no longer confirmed', async () => {
  bench = await startBench((request, response) => (condition(request) === '"v1"' ? response.writeHead(304).end() : whole(response, 'text')), { keepStaleMs: 10_000, stale: { ifUnreachableMs: 0 } })
  await goStale()
  expect((await bench.get('/a')).cacheStatus).toContain('fwd-status=304')
  await bench.middleware.drain()
  bench.clock.advance(70_000)
  expect((await bench.get('/a')).cacheStatus).toBe('proxy; fwd=stale; stored; ttl=60')
})

test('HEAD and ranges of a stale entry go to the origin by themselves', async () => {
  bench = await startBench((request, response) => {
    if (request.headers.range !== undefined) response.writeHead(206, { 'content-range': 'bytes 0-0/4' }).end('t')
    else whole(response, 'text')
  })
  await goStale()
  expect((await bench.get('/a', { range: 'bytes=0-0' })).cacheStatus).toBe('proxy; fwd=stale; detail=range')
  expect((await bench.ask('/a', { method: 'HEAD' })).cacheStatus).toBe('proxy; fwd=stale; detail=method')
})

// RFC 9111 section 4.3.4: such a 304 was taken for a confirmation, and the old bytes went on under the new tag.
test('a 304 that names another entity tag confirms nothing: the whole is fetched', async () => {
  bench = await startBench((request, response) => {
    if (condition(request) !== undefined) response.writeHead(304, { etag: '"v2"' }).end()
    else whole(response, `text ${bench.origin.requests.length}`, { etag: bench.origin.requests.length === 1 ? '"v1"' : '"v2"' })
  })
  await goStale()
  const answer = await bench.get('/a')
  expect([answer.status, answer.body.toString(), answer.headers.etag, answer.cacheStatus]).toEqual([200, 'text 3', '"v2"', 'proxy; fwd=stale; stored; ttl=60'])
  await bench.middleware.drain()
  expect((await bench.get('/a')).body.toString()).toBe('text 3')
})

// It was renewed as fresh, with the no-store among its fields.
test.each(['no-store', 'private', 'private, max-age=60'])('a 304 with %s: this client is answered, and the entry is forgotten', async (control) => {
  bench = await startBench((request, response) => (condition(request) === '"v1"' ? response.writeHead(304, { 'cache-control': control }).end() : whole(response, 'text')))
  await goStale()
  const answer = await bench.get('/a')
  expect([answer.status, answer.body.toString()]).toEqual([200, 'text'])
  await bench.middleware.drain()
  expect((await bench.get('/a')).cacheStatus).toContain('fwd=uri-miss')
})

test('an authorized client may confirm an entry for itself, but not renew it for others', async () => {
  bench = await startBench((request, response) => (condition(request) === '"v1"' ? response.writeHead(304).end() : whole(response, 'text')))
  await goStale()
  const answer = await bench.get('/a', { authorization: 'Bearer x' })
  expect([answer.body.toString(), answer.cacheStatus]).toEqual(['text', 'proxy; fwd=stale; fwd-status=304; ttl=60'])
  await bench.middleware.drain()
  expect((await bench.get('/a')).cacheStatus).toContain('fwd-status=304')
  expect(bench.origin.requests.length).toBe(3)
})

test('a 304 to a request without conditions is nobody’s entry', async () => {
  bench = await startBench((_, response) => response.writeHead(304, { 'cache-control': 'max-age=60' }).end())
  expect((await bench.get('/a')).cacheStatus).toBe('proxy; fwd=uri-miss; detail=status')
  expect(bench.store.calls).not.toContain('put')
})

test('the origin fails while it is asked to confirm', async () => {
  let fails = false
  bench = await startBench((request, response) => (fails ? request.socket.destroy() : whole(response, 'text')), { stale: { ifUnreachableMs: 0 } })
  await goStale()
  fails = true
  expect((await bench.get('/a')).status).toBe(502)
  fails = false
  expect((await bench.get('/a')).status).toBe(200)
})

test('an error instead of a confirmation is passed on, and the entry stays to be confirmed', async () => {
  let fails = false
  bench = await startBench((request, response) => {
    if (fails) response.writeHead(500).end('oops')
    else if (condition(request) === '"v1"') response.writeHead(304).end()
    else whole(response, 'text')
  })
  await goStale()
  fails = true
  const answer = await bench.get('/a')
  expect([answer.status, answer.cacheStatus]).toEqual([500, 'proxy; fwd=stale; detail=status'])
  fails = false
  expect((await bench.get('/a')).cacheStatus).toBe('proxy; fwd=stale; fwd-status=304; ttl=60')
})

// What a 304 brought was stored as it came: the field that it kept for its client was given to all who came after.
test('fields that a 304 keeps for its client are not stored', async () => {
  bench = await startBench((request, response) => {
    const fields = { 'cache-control': 'max-age=60, private="x-user"', 'x-user': String(request.headers['x-client']) }
    if (condition(request) === '"v1"') response.writeHead(304, fields).end()
    else whole(response, 'text', fields)
  })
  await goStale()
  await bench.get('/a', { 'x-client': 'one' })
  await bench.middleware.drain()
  const hit = await bench.get('/a', { 'x-client': 'two' })
  expect([hit.cacheStatus, hit.headers['x-user']]).toEqual(['proxy; hit; ttl=60', undefined])
})
