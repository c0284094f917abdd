import { readAll } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { sampleBytes, sampleMeta, storeConformance } from '../src/conformance.ts'
import { metaBytes } from '../src/entry-bytes.ts'
import { type EvictionPolicy, MemoryStore } from '../src/memory-store.ts'
import type { CacheWriter } from '../src/store.ts'
import { digest, headers } from './support.ts'

describe.each(['s3-fifo', 'lru'] as const)('MemoryStore conformance, %s', (eviction) => {
  storeConformance({ test, create: () => new MemoryStore({ maxBytes: 16 << 20, maxEntryBytes: 2 << 20, eviction }), tooLargeBytes: (2 << 20) + 1 })
})

const meta = sampleMeta({ headers: headers({ etag: '"a"' }) })

async function put(store: MemoryStore, key: string, bytes: Buffer): Promise<boolean> {
  const writer = store.put(key, meta)
  writer.write(bytes)
  return writer.commit()
}

const sizeOf = (key: string, length: number): number => metaBytes(key, meta) + length

describe('bound', () => {
  test('counts keys, metadata and bodies, and comes back to zero', async () => {
    const store = new MemoryStore()
    expect(store.stats().bytes).toBe(0)
    for (const [key, length] of [
      ['small', 10],
      ['text', 16_384],
      ['moderate', 300_000],
      ['large', 3_000_001]
    ] as const) {
      const before = store.stats().bytes
      expect(await put(store, key, sampleBytes(length))).toBe(true)
      expect(store.stats().bytes - before).toBe(sizeOf(key, length))
    }
    expect(await put(store, 'small', sampleBytes(500))).toBe(true)
    expect(store.stats().entries).toBe(4)
    for (const key of ['small', 'text', 'moderate', 'large']) await store.delete(key)
    expect(store.stats()).toMatchObject({ bytes: 0, entries: 0 })
  })

  // A write that had announced a megabyte took a megabyte of memory and counted as the one byte that had arrived.
  test('counts what a write under way takes, not what has arrived of it', () => {
    const store = new MemoryStore({ maxBytes: 4 << 20, maxEntryBytes: 2 << 20 })
    const writers: CacheWriter[] = []
    for (let i = 0; i < 10; i++) {
      const writer = store.put(`w${i}`, { ...meta, length: 1 << 20 })
      writer.write(Buffer.from('x'))
      writers.push(writer)
    }
    expect(writers.filter((writer) => writer.failed !== true).length).toBe(3)
    expect(store.stats().bytes).toBeLessThanOrEqual(4 << 20)
    for (const writer of writers) writer.abort()
    expect(store.stats().bytes).toBe(0)
  })

  // The first store emptied itself for a write that could not have had the room even then.
  test('does not evict for a write that is refused all the same', async () => {
    const store = new MemoryStore({ maxBytes: 1 << 20, maxEntryBytes: 1 << 20 })
    await put(store, 'kept', sampleBytes(100_000))
    const pending = store.put('pending', { ...meta, length: 800_000 })
    pending.write(sampleBytes(800_000))
    const refused = store.put('refused', { ...meta, length: 500_000 })
    refused.write(sampleBytes(500_000))
    expect(refused.failed).toBe(true)
    expect(store.stats()).toMatchObject({ entries: 1, evictions: 0, refused: 1 })
    pending.abort()
  })

  // Closing set the counter to zero, and writes given up afterwards took it below.
  test('closing with writes under way', async () => {
    const store = new MemoryStore()
    await put(store, 'a', sampleBytes(1000))
    const [one, other] = [store.put('b', meta), store.put('c', meta)]
    one.write(sampleBytes(5000))
    other.write(sampleBytes(5000))
    await store.close()
    expect(store.stats().entries).toBe(0)
    one.abort()
    expect(await other.commit()).toBe(false)
    expect(store.stats()).toMatchObject({ bytes: 0, entries: 0 })
    expect(await put(store, 'd', sampleBytes(10))).toBe(false)
    expect(await store.get('d')).toBeUndefined()
    expect(store.stats().bytes).toBe(0)
  })

  test('a body that is too large is refused as soon as that is known', async () => {
    const store = new MemoryStore({ maxBytes: 1 << 20, maxEntryBytes: 10_000 })
    expect(store.put('declared', { ...meta, length: 10_000 }).failed).toBe(true)
    const writer = store.put('growing', meta)
    expect(writer.write(sampleBytes(6000))).toBe(true)
    expect(writer.failed).toBe(false)
    expect(writer.write(sampleBytes(6000))).toBe(true)
    expect(writer.failed).toBe(true)
    expect(await writer.commit()).toBe(false)
    expect(store.stats()).toMatchObject({ bytes: 0, refused: 2 })
  })

  test('touch counts the new metadata', async () => {
    const store = new MemoryStore()
    await put(store, 'k', sampleBytes(100))
    const entry = await store.get('k')
    const longer = { ...meta, headers: headers({ etag: '"a"', 'x-more': 'y'.repeat(1000) }), tags: ['one'] }
    expect(await store.touch('k', entry?.version ?? '', longer)).toBe(true)
    expect(store.stats().bytes).toBe(metaBytes('k', longer) + 100)
    await store.delete('k')
    expect(store.stats().bytes).toBe(0)
  })

  test('sizes that are none, and a policy', () => {
    expect(() => new MemoryStore({ eviction: 'fifo' as 'lru' })).toThrow(TypeError)
    for (const maxBytes of [0, -1, Number.NaN]) expect(() => new MemoryStore({ maxBytes })).toThrow(TypeError)
    expect(() => new MemoryStore({ maxEntryBytes: 0 })).toThrow(TypeError)
  })
})

describe('what goes first', () => {
  const size = sizeOf('k00', 10_000)
  const roomFor = (entries: number, eviction?: EvictionPolicy) => new MemoryStore({ maxBytes: entries * size, maxEntryBytes: size, ...(eviction && { eviction }) })
  const putAll = async (store: MemoryStore, keys: string[]): Promise<void> => {
    // Of a declared length: a write under way then takes no more than its bytes.
    for (const key of keys) {
      const writer = store.put(key, { ...meta, length: 10_000 })
      writer.write(Buffer.alloc(10_000))
      expect(await writer.commit()).toBe(true)
    }
  }
  const present = async (store: MemoryStore, keys: string[]): Promise<string> => {
    const found: string[] = []
    for (const key of keys) if ((await store.get(key)) !== undefined) found.push(key)
    return found.join(' ')
  }

  test('lru: the least recently used', async () => {
    const store = roomFor(3, 'lru')
    await putAll(store, ['k00', 'k01', 'k02'])
    await store.get('k00')
    await putAll(store, ['k03'])
    expect(await present(store, ['k00', 'k01', 'k02', 'k03'])).toBe('k00 k02 k03')
    expect(store.stats()).toMatchObject({ hits: 4, misses: 1, evictions: 1 })
  })

  test('by default: what is asked for once, however much of it there is', async () => {
    const wanted = ['k00', 'k01', 'k02', 'k03', 'k04']
    const crawled = Array.from({ length: 40 }, (_, i) => `k${i + 10}`)
    for (const [eviction, left] of [
      [undefined, wanted.join(' ')],
      ['lru', '']
    ] as const) {
      const store = roomFor(20, eviction)
      await putAll(store, wanted)
      await present(store, wanted)
      await putAll(store, crawled)
      expect(await present(store, wanted)).toBe(left)
      expect(store.stats()).toMatchObject({ entries: 20, bytes: 20 * size, evictions: 25 })
    }
  })

  test('by default: what comes back soon after it went stays', async () => {
    const store = roomFor(20)
    await putAll(store, ['k00', ...Array.from({ length: 20 }, (_, i) => `k${i + 10}`)])
    expect(await present(store, ['k00'])).toBe('')
    await putAll(store, ['k00', ...Array.from({ length: 40 }, (_, i) => `k${i + 40}`)])
    expect(await present(store, ['k00'])).toBe('k00')
  })

  test('what is written again: by default it keeps its place, with lru it was used', async () => {
    for (const [eviction, left] of [
      [undefined, 'k01 k02 k03 k04'],
      ['lru', 'k00 k02 k03 k04']
    ] as const) {
      const store = roomFor(4, eviction)
      await putAll(store, ['k00', 'k01', 'k02', 'k00', 'k03', 'k04'])
      expect(await present(store, ['k00', 'k01', 'k02', 'k03', 'k04'])).toBe(left)
    }
  })
})

// What keeps an in-memory hit cheap.
test('a hit allocates nothing in the store', async () => {
  const store = new MemoryStore()
  await put(store, 'k', sampleBytes(1000))
  const found = store.get('k')
  expect(store.get('k')).toBe(found)
  const entry = await found
  expect(await store.get('k')).toBe(entry)
  expect(entry?.open()).toBe(entry?.open())
  expect(store.get('none')).toBe(store.get('nothing'))
})

test('versions of two stores differ', async () => {
  const [one, other] = [new MemoryStore(), new MemoryStore()]
  await put(one, 'k', Buffer.from('1'))
  await put(other, 'k', Buffer.from('2'))
  expect((await one.get('k'))?.version).not.toBe((await other.get('k'))?.version)
})

test('an entry that was evicted can still be read by who holds it', async () => {
  const store = new MemoryStore({ maxBytes: 200_000, maxEntryBytes: 150_000 })
  const bytes = sampleBytes(100_000)
  await put(store, 'k', bytes)
  const entry = await store.get('k')
  await put(store, 'other', sampleBytes(100_000, 2))
  expect(await store.get('k')).toBeUndefined()
  expect(digest(await readAll((await entry?.open()) ?? null, 1 << 20))).toBe(digest(bytes))
})
