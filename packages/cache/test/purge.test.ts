import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { type CacheOptions, MemoryPurgeLog, MemoryStore, type Purge, type PurgeRecord, tiered } from '../src/index.ts'
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
