import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, request as sendRequest } from 'node:http'
import type { Handler } from '@proxy/pipeline'
import { afterEach, describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import type { CacheWriter } from '../src/store.ts'
import { ask, type Bench, type ClientAnswer, digest, openAnswer, startBench, until } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

/** Responses that the origin has not answered yet, in the order of arrival. */
let held: { request: IncomingMessage; response: ServerResponse }[] = []
/** Requests that have reached the cache. */
let arrived = 0

async function startHeld(options: Parameters<typeof startBench>[1] = {}): Promise<void> {
  held = []
  arrived = 0
  const count = (handler: Handler): Handler => {
    return (request) => {
      arrived++
      return handler(request)
    }
  }
  bench = await startBench((request, response) => held.push({ request, response }), { wrap: count, ...options })
}

const originHas = (count: number): Promise<void> => until(() => held.length === count, `${count} requests at the origin`)
/** And the first of them at the origin: what follows it then waits for that. */
const cacheHas = (count: number): Promise<void> => until(() => arrived === count && held.length > 0, `${count} requests at the cache`)

/** The origin's answer to its nth request. */
function answer(n: number, fields: Record<string, string | string[] | number> = { 'cache-control': 'max-age=60' }, status = 200): ServerResponse {
  const one = held[n] as (typeof held)[number]
  one.response.writeHead(status, fields)
  return one.response
}

/** A client who leaves when told. */
function leaver(path: string): { leave(): Promise<void> } {
  const outgoing = sendRequest({ host: '127.0.0.1', port: bench.port, path, headers: { host: 'example.org' }, agent: false })
  outgoing.on('error', () => {})
  outgoing.on('response', (incoming) => {
    incoming.on('error', () => {})
    incoming.resume()
  })
  outgoing.end()
  return {
    async leave() {
      const closed = new Promise((resolve) => outgoing.once('close', resolve))
      outgoing.destroy()
      await closed
    }
  }
}

async function readRest(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const outcome = (results: PromiseSettledResult<ClientAnswer>[]): (number | 'cut')[] => results.map((result) => (result.status === 'fulfilled' ? result.value.status : 'cut'))

const bytes = sampleBytes(500_000)

describe('many ask for one thing', () => {
  test('a hundred clients, one request to the origin, every byte the same', async () => {
    await startHeld()
    const clients = Array.from({ length: 100 }, () => bench.get('/a'))
    await cacheHas(100)
    answer(0, { 'cache-control': 'max-age=60', 'content-length': bytes.length }).end(bytes)
    const answers = await Promise.all(clients)
    expect(new Set(answers.map(({ body }) => digest(body)))).toEqual(new Set([digest(bytes)]))
    expect(answers.map(({ cacheStatus }) => cacheStatus).sort()).toEqual(['proxy; fwd=uri-miss; stored; ttl=60', ...Array.from({ length: 99 }, () => 'proxy; fwd=uri-miss; collapsed; ttl=60')].sort())
    expect(held.length).toBe(1)
  })

  test('a joiner gets what has arrived, and then the rest as it comes', async () => {
    await startHeld()
    const leader = openAnswer(bench.port, '/a')
    await originHas(1)
    const response = answer(0)
    response.write('one')
    const first = await leader
    const second = await openAnswer(bench.port, '/a')
    // The origin has not finished: this is the joiner reading from the running fill.
    const [early] = (await once(second, 'data')) as [Buffer]
    expect(early.toString()).toBe('one')
    response.end('two')
    expect((await readRest(second)).toString()).toBe('two')
    expect((await readRest(first)).toString()).toBe('onetwo')
    expect(held.length).toBe(1)
  })

  test('different things do not wait for each other', async () => {
    await startHeld()
    const [one, two] = [bench.get('/a'), bench.get('/b')]
    await originHas(2)
    answer(1).end('x')
    answer(0).end('x')
    await Promise.all([one, two])
  })

  test('a finished fill can be joined until its commit is settled', async () => {
    await startHeld()
    const commit = Promise.withResolvers<void>()
    bench.store.onPut = (writer): CacheWriter => ({
      write: (chunk) => writer.write(chunk),
      drained: () => writer.drained(),
      commit: async () => {
        await commit.promise
        return writer.commit()
      },
      abort: () => writer.abort()
    })
    const first = bench.get('/a')
    await originHas(1)
    answer(0).end('text')
    await first
    const second = await bench.get('/a')
    expect([second.body.toString(), second.cacheStatus]).toEqual(['text', 'proxy; fwd=uri-miss; collapsed; ttl=60'])
    commit.resolve()
    await bench.middleware.drain()
    expect((await bench.get('/a')).cacheStatus).toContain('hit')
    expect(held.length).toBe(1)
  })
})

describe('readers of different speed', () => {
  const large = sampleBytes(10_000_000)

  test('the leader gets all while a joiner reads nothing, and the joiner gets all later', async () => {
    await startHeld({ store: new MemoryStore({ maxEntryBytes: 32 << 20 }) })
    const leader = bench.get('/a')
    await originHas(1)
    const response = answer(0, { 'cache-control': 'max-age=60', 'content-length': large.length })
    response.write(large.subarray(0, 1000))
    const joiner = await openAnswer(bench.port, '/a')
    response.end(large.subarray(1000))
    expect(digest((await leader).body)).toBe(digest(large))
    expect(digest(await readRest(joiner))).toBe(digest(large))
    expect(held.length).toBe(1)
  })

  test('a joiner gets all while the leader reads nothing', async () => {
    await startHeld({ store: new MemoryStore({ maxEntryBytes: 32 << 20 }) })
    const opening = openAnswer(bench.port, '/a')
    await originHas(1)
    const response = answer(0)
    response.write(large.subarray(0, 1000))
    const leader = await opening
    const joiner = bench.get('/a')
    response.end(large.subarray(1000))
    expect(digest((await joiner).body)).toBe(digest(large))
    expect(digest(await readRest(leader))).toBe(digest(large))
    expect(held.length).toBe(1)
  })

  test('the store refuses in the middle: who reads goes on', async () => {
    await startHeld({ store: new MemoryStore({ maxEntryBytes: 1 << 20 }) })
    const [one, two] = [bench.get('/a'), bench.get('/a')]
    await cacheHas(2)
    answer(0).end(large)
    for (const { body } of await Promise.all([one, two])) expect(digest(body)).toBe(digest(large))
    expect(held.length).toBe(1)
    await bench.middleware.drain()
    const next = bench.get('/a')
    await originHas(2)
    answer(1).end('x')
    expect((await next).cacheStatus).toContain('uri-miss')
  })
})

describe('clients who leave', () => {
  test('the leader, before the header: what was asked for is stored', async () => {
    await startHeld()
    const leader = leaver('/a')
    await originHas(1)
    await leader.leave()
    answer(0).end(bytes)
    await bench.middleware.drain()
    const hit = await bench.get('/a')
    expect([digest(hit.body), hit.cacheStatus]).toEqual([digest(bytes), 'proxy; hit; ttl=60'])
  })

  test('the leader, while a joiner waits', async () => {
    await startHeld()
    const leader = leaver('/a')
    await originHas(1)
    const joiner = bench.get('/a')
    await cacheHas(2)
    await leader.leave()
    answer(0).end(bytes)
    expect(digest((await joiner).body)).toBe(digest(bytes))
    expect(held.length).toBe(1)
  })

  test('everybody, in the middle: a small rest is fetched', async () => {
    await startHeld()
    const clients = [leaver('/a'), leaver('/a')]
    await cacheHas(2)
    const response = answer(0, { 'cache-control': 'max-age=60', 'content-length': bytes.length })
    response.write(bytes.subarray(0, 1000))
    await until(() => (bench.store.inner as MemoryStore).stats().bytes > 1000, 'the first bytes')
    await Promise.all(clients.map((client) => client.leave()))
    response.end(bytes.subarray(1000))
    await bench.middleware.drain()
    expect((await bench.get('/a')).cacheStatus).toBe('proxy; hit; ttl=60')
  })

  test('everybody, in the middle: a large rest is given up, at the origin too', async () => {
    await startHeld({ finishBytes: 100_000 })
    const clients = [leaver('/a'), leaver('/a')]
    await cacheHas(2)
    const response = answer(0, { 'cache-control': 'max-age=60', 'content-length': bytes.length })
    response.write(bytes.subarray(0, 1000))
    const closed = once(response, 'close')
    await until(() => (bench.store.inner as MemoryStore).stats().bytes > 1000, 'the first bytes')
    await Promise.all(clients.map((client) => client.leave()))
    await closed
    expect(response.writableFinished).toBe(false)
    await bench.middleware.drain()
    expect((bench.store.inner as MemoryStore).stats()).toMatchObject({ bytes: 0, entries: 0 })
    const next = bench.get('/a')
    await originHas(2)
    answer(1).end('x')
    expect((await next).body.toString()).toBe('x')
  })
})

describe('origins that fail', () => {
  test('in the middle of the body: all are cut, nothing is stored, the next request asks again', async () => {
    await startHeld()
    const clients = Array.from({ length: 5 }, () => bench.get('/a'))
    await cacheHas(5)
    answer(0, { 'cache-control': 'max-age=60', 'content-length': bytes.length }).write(bytes.subarray(0, 100_000))
    await until(() => (bench.store.inner as MemoryStore).stats().bytes > 100_000, 'the first bytes')
    held[0]?.response.destroy()
    expect(outcome(await Promise.allSettled(clients))).toEqual(['cut', 'cut', 'cut', 'cut', 'cut'])
    await bench.middleware.drain()
    expect((bench.store.inner as MemoryStore).stats().bytes).toBe(0)
    const next = bench.get('/a')
    await originHas(2)
    answer(1).end('x')
    expect((await next).status).toBe(200)
  })

  test('before the header: one more try for all who wait, then the error', async () => {
    await startHeld()
    const clients = Array.from({ length: 10 }, () => bench.get('/a'))
    await cacheHas(10)
    held[0]?.response.destroy()
    await originHas(2)
    held[1]?.response.destroy()
    expect(outcome(await Promise.allSettled(clients))).toEqual(Array.from({ length: 10 }, () => 502))
    expect(held.length).toBe(2)
    expect(bench.middleware.stats().fills).toBe(0)
  })

  test('before the header, and then not: all but the first are answered', async () => {
    await startHeld()
    const clients = Array.from({ length: 10 }, () => bench.get('/a'))
    await cacheHas(10)
    held[0]?.response.destroy()
    await originHas(2)
    answer(1).end('text')
    const statuses = outcome(await Promise.allSettled(clients))
    expect([statuses.filter((status) => status === 502).length, statuses.filter((status) => status === 200).length]).toEqual([1, 9])
    expect(held.length).toBe(2)
  })

  test('before the header: nothing is asked again for clients who have left', async () => {
    await startHeld()
    const leader = bench.get('/a')
    await originHas(1)
    const joiners = [leaver('/a'), leaver('/a')]
    await cacheHas(3)
    await Promise.all(joiners.map((joiner) => joiner.leave()))
    // A round trip on another connection: the server has seen the others close.
    const other = bench.get('/other')
    await originHas(2)
    answer(1).end()
    await other
    held[0]?.response.destroy()
    expect((await leader).status).toBe(502)
    await bench.middleware.drain()
    expect(held.length).toBe(2)
  })

  test('with connectErrorMs, those who wait get the failure that was remembered', async () => {
    await startHeld({ negative: { connectErrorMs: 1000 } })
    const clients = Array.from({ length: 10 }, () => bench.get('/a'))
    await cacheHas(10)
    held[0]?.response.destroy()
    expect(outcome(await Promise.allSettled(clients))).toEqual(Array.from({ length: 10 }, () => 502))
    expect(held.length).toBe(1)
  })
})

describe('what turns out not to be for all', () => {
  test.each<[string, Record<string, string>]>([
    ['private', { 'cache-control': 'private, max-age=60' }],
    ['no-store', { 'cache-control': 'no-store' }],
    ['a cookie', { 'cache-control': 'max-age=60', 'set-cookie': 'session=1' }],
    ['Vary: *', { 'cache-control': 'max-age=60', vary: '*' }],
    ['larger than the cache takes', { 'cache-control': 'max-age=60', 'content-length': '5' }]
  ])('%s: everybody gets an answer of their own', async (_, fields) => {
    await startHeld({ maxObjectBytes: 4 })
    const clients = Array.from({ length: 5 }, () => bench.get('/a'))
    await cacheHas(5)
    answer(0, fields).end('own-0')
    await originHas(5)
    for (let i = 1; i < 5; i++) answer(i, fields).end(`own-${i}`)
    const answers = await Promise.all(clients)
    expect(answers.map(({ body }) => body.toString()).sort()).toEqual(['own-0', 'own-1', 'own-2', 'own-3', 'own-4'])
    expect(answers.filter(({ cacheStatus }) => cacheStatus.endsWith('detail=not-shared')).length).toBe(4)
  })

  test('another variant: who matches the leader shares, the others share one fill for each variant', async () => {
    await startHeld()
    const languages = ['en', 'de', 'en', 'de', 'en', 'fr']
    const clients = languages.map((language) => bench.get('/a', { 'accept-language': language }))
    await cacheHas(6)
    const respond = (n: number): void => {
      const language = held[n]?.request.headers['accept-language']
      answer(n, { 'cache-control': 'max-age=60', vary: 'Accept-Language' }).end(`in ${language}`)
    }
    respond(0)
    await originHas(3)
    respond(1)
    respond(2)
    const answers = await Promise.all(clients)
    expect(answers.map(({ body }) => body.toString())).toEqual(languages.map((language) => `in ${language}`))
    expect(held.length).toBe(3)
  })
})

describe('who joins', () => {
  test('a variant that is being fetched is found under its own key, too', async () => {
    await startHeld()
    const first = openAnswer(bench.port, '/a', { headers: { 'accept-language': 'en' } })
    await originHas(1)
    const response = answer(0, { 'cache-control': 'max-age=60', vary: 'Accept-Language' })
    response.write('one')
    const leader = await first
    // The base record is there by now, the variant is not.
    const second = await openAnswer(bench.port, '/a', { headers: { 'accept-language': 'en' } })
    expect(second.headers['cache-status']).toBe('proxy; fwd=vary-miss; collapsed; ttl=60')
    response.end('two')
    expect([(await readRest(leader)).toString(), (await readRest(second)).toString()]).toEqual(['onetwo', 'onetwo'])
    expect(held.length).toBe(1)
  })

  test('HEAD and conditions are answered from the fill of a GET; a range asks for itself', async () => {
    await startHeld()
    const leader = bench.get('/a')
    await originHas(1)
    const head = bench.ask('/a', { method: 'HEAD' })
    const conditional = bench.get('/a', { 'if-none-match': '"v1"' })
    await cacheHas(3)
    const range = bench.get('/a', { range: 'bytes=0-1' })
    await originHas(2)
    answer(1, { 'content-range': 'bytes 0-1/4' }, 206).end('te')
    answer(0, { 'cache-control': 'max-age=60', etag: '"v1"', 'content-length': 4 }).end('text')
    const answers = await Promise.all([leader, head, conditional, range])
    expect(answers.map(({ status, body }) => [status, body.toString()])).toEqual([
      [200, 'text'],
      [200, ''],
      [304, ''],
      [206, 'te']
    ])
    expect(answers[1]?.headers['content-length']).toBe('4')
    expect(held.length).toBe(2)
  })

  test('no-cache never joins, and can be joined', async () => {
    await startHeld()
    const plain = bench.get('/a')
    await originHas(1)
    const reload = bench.get('/a', { 'cache-control': 'no-cache' })
    await originHas(2)
    const joiner = bench.get('/a')
    await cacheHas(3)
    answer(0).end('first')
    answer(1).end('second')
    expect((await Promise.all([plain, reload, joiner])).map(({ body }) => body.toString())).toEqual(['first', 'second', 'first'])
    const reloading = bench.get('/b', { 'cache-control': 'no-cache' })
    await originHas(3)
    const joining = bench.get('/b')
    await cacheHas(5)
    answer(2).end('b')
    expect((await Promise.all([reloading, joining])).map(({ body }) => body.toString())).toEqual(['b', 'b'])
  })

  test('a stale entry is confirmed once for all who wait', async () => {
    await startHeld()
    const first = bench.get('/a')
    await originHas(1)
    answer(0, { 'cache-control': 'max-age=60', etag: '"v1"' }).end(bytes)
    await first
    await bench.middleware.drain()
    bench.clock.advance(61_000)
    const clients = Array.from({ length: 10 }, () => bench.get('/a'))
    await cacheHas(11)
    answer(1, { etag: '"v1"' }, 304).end()
    const answers = await Promise.all(clients)
    expect(new Set(answers.map(({ body }) => digest(body)))).toEqual(new Set([digest(bytes)]))
    expect(answers.map(({ cacheStatus }) => cacheStatus).sort()).toEqual(['proxy; fwd=stale; fwd-status=304; ttl=60', ...Array.from({ length: 9 }, () => 'proxy; fwd=stale; collapsed; ttl=60')].sort())
    expect(held.length).toBe(2)
  })

  test('a stale entry turns out to be private now: each asks for itself', async () => {
    await startHeld()
    const first = bench.get('/a')
    await originHas(1)
    answer(0, { 'cache-control': 'max-age=60', etag: '"v1"' }).end('text')
    await first
    await bench.middleware.drain()
    bench.clock.advance(61_000)
    const clients = Array.from({ length: 3 }, () => bench.get('/a'))
    await cacheHas(4)
    answer(1, { 'cache-control': 'private' }, 304).end()
    await originHas(4)
    answer(2, { 'cache-control': 'private' }).end('own')
    answer(3, { 'cache-control': 'private' }).end('own')
    expect((await Promise.all(clients)).map(({ body }) => body.toString()).sort()).toEqual(['own', 'own', 'text'])
  })

  test('the bytes of a confirmed entry are gone: one more fill for all', async () => {
    await startHeld()
    const first = bench.get('/a')
    await originHas(1)
    answer(0, { 'cache-control': 'max-age=60', etag: '"v1"' }).end('text')
    await first
    await bench.middleware.drain()
    bench.clock.advance(61_000)
    bench.store.breakOpen = () => new Error('gone')
    const clients = Array.from({ length: 5 }, () => ask(bench.port, '/a'))
    await cacheHas(6)
    answer(1, {}, 304).end()
    await originHas(3)
    bench.store.breakOpen = undefined
    answer(2).end('again')
    expect((await Promise.all(clients)).map(({ body }) => body.toString())).toEqual(Array.from({ length: 5 }, () => 'again'))
    expect(held.length).toBe(3)
  })
})
