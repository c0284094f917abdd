import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { type CacheOptions, MemoryPurgeLog, MemoryStore, type Purge, type PurgeLog, type PurgeRecord, type StoredMeta, tiered } from '../src/index.ts'
import { type Bench, startBench, until } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

let version: number
let tags: Record<string, string>
let cacheControl: string
let held: ServerResponse[] | undefined

async function start(options: Partial<CacheOptions> = {}): Promise<void> {
  version = 1
  tags = {}
  cacheControl = 'max-age=600'
  held = undefined
  bench = await startBench((request, response) => {
    const etag = `"${request.url}-${version}"`
    if (request.headers['if-none-match'] === etag) {
      response.writeHead(304).end()
      return
    }
    response.writeHead(200, { 'cache-control': cacheControl, etag, vary: 'accept-language', ...tags })
    if (held === undefined) response.end(`version ${version}`)
    else {
      response.write('version')
      held.push(response)
    }
  }, options)
}

async function get(path: string, headers: Record<string, string> = {}): Promise<string> {
  const { body, cacheStatus } = await bench.get(path, headers)
  await bench.middleware.drain()
  return `${body.toString()} | ${cacheStatus.replace(/^proxy; |; ttl=-?\d+|; stored/g, '')}`
}

/** Two variants of /a, and /b/c, /b/d, /bcd. */
async function fill(): Promise<void> {
  await get('/a', { 'accept-language': 'en' })
  await get('/a', { 'accept-language': 'de' })
  for (const path of ['/b/c', '/b/d', '/bcd']) await get(path)
  bench.clock.advance(1000)
  version = 2
}

const all = async (): Promise<string> => {
  const found: string[] = []
  for (const [path, language] of [['/a', 'en'], ['/a', 'de'], ['/b/c'], ['/b/d'], ['/bcd']])
    found.push((await get(path as string, language === undefined ? {} : { 'accept-language': language })).startsWith('version 1') ? '1' : '2')
  return found.join('')
}

describe('purges', () => {
  test.each<[Purge, string, number]>([
    [{ url: 'http://example.org/a' }, '22111', 2],
    [{ url: 'HTTP://EXAMPLE.org/b/c' }, '11211', 1],
    [{ url: 'http://example.org/b' }, '11111', 0],
    [{ url: 'https://example.org/a' }, '11111', 0],
    [{ prefix: 'http://example.org/b' }, '11222', 3],
    [{ prefix: 'http://example.org/b/' }, '11221', 2],
    [{ prefix: 'http://example.org/' }, '22222', 5],
    [{ all: true }, '22222', 5]
  ])('%j', async (purge, expected, touched) => {
    await start()
    await fill()
    expect(await bench.middleware.purge(purge)).toEqual({ touched })
    expect(await all()).toBe(expected)
    // What was fetched since is kept, and a second purge finds it.
    bench.clock.advance(1000)
    expect(await bench.middleware.purge(purge)).toEqual({ touched })
  })

  test.each([
    ['surrogate-key', 'one two'],
    ['cache-tag', 'one, two'],
    ['xkey', 'two one']
  ])('by tag, from %s', async (field, value) => {
    await start()
    await get('/plain')
    tags = { [field]: value }
    await get('/tagged')
    bench.clock.advance(1)
    version = 2
    expect(await bench.middleware.purge({ tag: 'on' })).toEqual({ touched: 0 })
    expect(await bench.middleware.purge({ tag: 'two' })).toEqual({ touched: 1 })
    expect([await get('/plain'), await get('/tagged')]).toEqual(['version 1 | hit', 'version 2 | fwd=vary-miss'])
  })

  test('touch what lies in a store that cannot be walked through', async () => {
    const inner = new MemoryStore()
    await start({
      store: {
        get: (key) => inner.get(key),
        put: (key, meta) => inner.put(key, meta),
        touch: (...args) => inner.touch(...args),
        delete: (...args) => inner.delete(...args),
        close: () => inner.close()
      }
    })
    await fill()
    expect(await bench.middleware.purge({ all: true })).toEqual({ touched: 0 })
    expect(await all()).toBe('22222')
  })

  test('all tiers', async () => {
    const tiers = [new MemoryStore(), new MemoryStore()]
    await start({ store: tiered(tiers.map((store, i) => ({ store, name: `${i}` }))) })
    await get('/a')
    bench.clock.advance(1)
    version = 2
    expect(await bench.middleware.purge({ url: 'http://example.org/a' })).toEqual({ touched: 2 })
    expect(await get('/a')).toContain('version 2')
  })

  test('leave other namespaces alone', async () => {
    const store = new MemoryStore()
    const purgeLog = new MemoryPurgeLog()
    await start({ store, purgeLog, namespace: 'one' })
    await get('/a')
    await purgeLog.add({ scope: 'all', value: '', namespace: 'other', at: bench.clock.wallMs() + 1000, soft: false })
    expect(await get('/a')).toBe('version 1 | hit')
    await purgeLog.add({ scope: 'all', value: '', at: bench.clock.wallMs(), soft: false })
    expect(await get('/a')).toContain('fwd')
  })

  // Its answer was asked for before the purge and stored after it: the purged content came back, for as long as it was fresh.
  test('include what is being fetched', async () => {
    await start()
    held = []
    const first = bench.get('/a')
    await until(() => held?.length === 1)
    bench.clock.advance(10)
    await bench.middleware.purge({ url: 'http://example.org/a' })
    bench.clock.advance(10)
    version = 2
    // Nobody joins what was asked for before.
    const second = bench.get('/a')
    await until(() => held?.length === 2)
    for (const [i, answer] of [first, second].entries()) {
      held?.[i]?.end(` ${i + 1}`)
      await answer
    }
    held = undefined
    await bench.middleware.drain()
    expect(bench.origin.requests).toHaveLength(2)
    await bench.middleware.purge({ url: 'http://example.org/none' })
    expect(await get('/a')).toContain('hit')
  })

  // Only the cache that purged let go of its fills: in another one, or another process, clients went on joining what had been asked for before.
  test('of another cache with the same log count as well: nobody joins what was asked for before', async () => {
    const purgeLog = new MemoryPurgeLog()
    await start({ purgeLog })
    held = []
    const first = bench.get('/a')
    await until(() => held?.length === 1)
    bench.clock.advance(10)
    await purgeLog.add({ scope: 'all', value: '', at: bench.clock.wallMs(), soft: false })
    bench.clock.advance(10)
    const second = bench.get('/a')
    await until(() => held?.length === 2)
    for (const [i, answer] of [first, second].entries()) {
      held?.[i]?.end(` ${i + 1}`)
      expect((await answer).body.toString()).toBe(`version ${i + 1}`)
    }
  })

  test('that the log cannot keep are rejected, count all the same, and are removed from the store', async () => {
    const store = new MemoryStore()
    const purgeLog = new MemoryPurgeLog()
    await start({
      store,
      purgeLog: {
        get revision() {
          return purgeLog.revision
        },
        verdict: (meta) => purgeLog.verdict(meta),
        add: (record) => purgeLog.add(record).then(() => Promise.reject(new Error('the disk is full')))
      }
    })
    await fill()
    await expect(bench.middleware.purge({ prefix: 'http://example.org/b' })).rejects.toThrow('the disk is full')
    expect(await all()).toBe('11222')
    bench.clock.advance(1)
    await expect(bench.middleware.purge({ all: true })).rejects.toThrow('the disk is full')
    // What leads to the variants of each URL stays: it holds nothing.
    await until(() => store.stats().entries === 4)
  })

  test('are answered before all of the store was seen, or when it failed, and count all the same', async () => {
    const inner = new MemoryStore()
    const errors: unknown[] = []
    const seen = Promise.withResolvers<void>()
    let outcome = seen.promise
    const store = Object.assign(Object.create(inner) as MemoryStore, {
      sweep: async (matches: (meta: StoredMeta) => boolean) => {
        expect(matches(sampleMeta({ url: 'http://example.org/a', namespace: 'default', requestTime: 0 }) as StoredMeta)).toBe(true)
        await outcome
        return 7
      }
    })
    await start({ store, sweepWaitMs: 20, onStoreError: (error) => errors.push(error) })
    await fill()
    expect(await bench.middleware.purge({ all: true })).toEqual({ touched: 1, partial: true })
    expect(await all()).toBe('22222')
    const failure = new Error('the store is away')
    outcome = Promise.reject(failure)
    expect(await bench.middleware.purge({ all: true })).toEqual({ touched: 1, partial: true })
    expect(errors).toEqual([failure])
    outcome = Promise.resolve()
    expect(await bench.middleware.purge({ all: true })).toEqual({ touched: 7 })
    seen.resolve()
  })

  test('do not wait for a tier whose walk never ends, and are carried out in the others', async () => {
    const near = new MemoryStore()
    const stuck = Object.assign(Object.create(new MemoryStore()) as MemoryStore, { sweep: () => new Promise<number>(() => {}) })
    const store = tiered([
      { name: 'near', store: near },
      { name: 'stuck', store: stuck }
    ])
    await start({ store, sweepWaitMs: 20 })
    await get('/a')
    await bench.middleware.drain()
    expect(near.stats().entries).toBe(2)
    bench.clock.advance(1)
    expect(await bench.middleware.purge({ all: true })).toEqual({ touched: 1, partial: true })
    // What leads to the variants is left.
    expect(near.stats().entries).toBe(1)
  })

  // A tier that failed counted as one that had nothing: the answer was the same as for a purge that had been carried out everywhere.
  test('say that they are partial when a tier could not be seen, and are carried out in the others', async () => {
    const [near, far] = [new MemoryStore(), new MemoryStore()]
    const failure = new Error('the store is away')
    const failing = Object.assign(Object.create(far) as MemoryStore, { sweep: () => Promise.reject(failure) })
    const told: unknown[] = []
    const tiers = [
      { name: 'near', store: near },
      { name: 'far', store: failing }
    ]
    await start({ store: tiered(tiers, { onTierError: (tier, error) => told.push(tier, error) }) })
    await get('/a')
    bench.clock.advance(1)
    version = 2
    expect(await bench.middleware.purge({ url: 'http://example.org/a' })).toEqual({ touched: 1, partial: true })
    expect(told).toEqual(['far', failure])
    // What leads to the variants is left.
    expect(near.stats().entries).toBe(1)
    expect(await get('/a')).toContain('version 2')
  })

  test('that are not known yet: the origin is asked before anything is served', async () => {
    let known = false
    const purgeLog: PurgeLog = {
      get revision() {
        return known ? 1 : 0
      },
      verdict: () => ({ hardAt: Number.NEGATIVE_INFINITY, softAt: known ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY }),
      add: () => Promise.resolve()
    }
    await start({ purgeLog })
    cacheControl = 'max-age=600, stale-while-revalidate=600'
    await get('/a')
    expect(await get('/a')).toBe('version 1 | fwd=stale; fwd-status=304')
    expect(await get('/a', { 'cache-control': 'max-stale' })).toBe('version 1 | fwd=stale; fwd-status=304')
    version = 2
    expect(await get('/a')).toBe('version 2 | fwd=stale')
    known = true
    expect(await get('/a')).toBe('version 2 | hit')
  })

  test('softly: stale, to be revalidated', async () => {
    await start()
    await fill()
    expect(await bench.middleware.purge({ prefix: 'http://example.org/b/', soft: true })).toEqual({ touched: 2 })
    bench.clock.advance(1)
    expect(await get('/b/c')).toBe('version 2 | fwd=stale')
    version = 1
    expect(await get('/b/d')).toBe('version 1 | fwd=stale; fwd-status=304')
    expect(await get('/b/d')).toBe('version 1 | hit')
  })

  test('softly: served while it is revalidated, where that is allowed, counted from the purge', async () => {
    await start()
    cacheControl = 'max-age=600, stale-while-revalidate=30'
    await get('/a')
    await get('/b')
    bench.clock.advance(100_000)
    version = 2
    await bench.middleware.purge({ all: true, soft: true })
    bench.clock.advance(29_000)
    expect(await get('/a')).toBe('version 1 | hit; detail=stale-while-revalidate')
    expect(await get('/a')).toBe('version 2 | hit')
    bench.clock.advance(1000)
    expect(await get('/b')).toBe('version 2 | fwd=stale')
  })

  test.each<[unknown, string]>([
    [{}, 'exactly one'],
    [{ url: 'http://a/', tag: 'b' }, 'exactly one'],
    [{ all: false }, 'all must be true'],
    [{ url: '' }, 'url is empty'],
    [{ url: '/a' }, 'must be an http or https URL'],
    [{ url: 'ftp://a/b' }, 'must be an http or https URL'],
    [{ url: 'http://a b/' }, 'must be an http or https URL'],
    [{ prefix: 'http://example.or' }, 'with a path'],
    [{ prefix: 'http://' }, 'with a path'],
    [{ tag: 'a b' }, 'no spaces'],
    [{ tag: 7 }, 'tag is empty']
  ])('that say nothing, or too much, are refused: %j', async (purge, message) => {
    await start()
    await expect(bench.middleware.purge(purge as Purge)).rejects.toThrow(TypeError)
    await expect(bench.middleware.purge(purge as Purge)).rejects.toThrow(message)
  })
})

describe('the log', () => {
  const record = (changes: Partial<PurgeRecord>): PurgeRecord => ({ scope: 'all', value: '', at: 0, soft: false, ...changes })
  const meta = sampleMeta({ url: 'http://example.org/a', namespace: 'n', tags: ['t', 'u'] })

  test('tells the latest purge of each kind', async () => {
    bench = { close: async () => {} } as Bench
    const log = new MemoryPurgeLog()
    expect(log.verdict(meta)).toEqual({ hardAt: Number.NEGATIVE_INFINITY, softAt: Number.NEGATIVE_INFINITY })
    await log.add(record({ scope: 'tag', value: 'u', at: 5 }))
    await log.add(record({ scope: 'url', value: 'http://example.org/a', at: 3, namespace: 'n' }))
    await log.add(record({ scope: 'prefix', value: 'http://example.org/', at: 9, soft: true }))
    await log.add(record({ scope: 'prefix', value: 'http://example.org/', at: 11, namespace: 'other' }))
    await log.add(record({ scope: 'url', value: 'http://example.org/b', at: 12 }))
    expect(log.verdict(meta)).toEqual({ hardAt: 5, softAt: 9 })
    expect(log.revision).toBe(5)
  })

  test('stays within its bound, and purges too much rather than too little', async () => {
    bench = { close: async () => {} } as Bench
    const log = new MemoryPurgeLog({ maxRecords: 10 })
    await log.add(record({ scope: 'url', value: 'http://example.org/a', at: 1 }))
    for (let at = 2; at < 100; at++) await log.add(record({ scope: 'url', value: `http://example.org/${at}`, at, soft: at % 2 === 0 }))
    expect(log.size).toBeLessThanOrEqual(10)
    const { hardAt, softAt } = log.verdict(meta)
    expect([hardAt > 80, softAt > 80, hardAt < 99, softAt < 99]).toEqual([true, true, true, true])
    expect(log.verdict({ ...meta, url: 'http://example.org/99' }).hardAt).toBe(99)
    expect(() => new MemoryPurgeLog({ maxRecords: 1 })).toThrow(RangeError)
  })
})

test('a store that throws instead of rejecting, and an endless wait for it', async () => {
  const started = await startBench((_, response) => response.writeHead(200, { 'cache-control': 'max-age=60' }).end('x'), { sweepWaitMs: Number.POSITIVE_INFINITY })
  try {
    await started.get('/a')
    expect(await started.middleware.purge({ all: true })).toEqual({ touched: 1 })
    started.store.sweep = () => {
      throw new Error('against the contract')
    }
    expect(await started.middleware.purge({ all: true })).toEqual({ touched: 0, partial: true })
    expect(started.storeErrors).toMatchObject([{ message: 'against the contract' }])
  } finally {
    await started.close()
  }
})
