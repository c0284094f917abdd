import { readAll } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { sampleBytes, sampleMeta, storeConformance } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import { metaBytes } from '../src/memory-writer.ts'
import type { CacheWriter } from '../src/store.ts'
import { digest, headers, randomFrom } from './support.ts'

describe('MemoryStore conformance', () => {
  storeConformance({ test, create: () => new MemoryStore({ maxBytes: 16 << 20, maxEntryBytes: 2 << 20 }), tooLargeBytes: (2 << 20) + 1 })
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

  test('sizes that are none', () => {
    for (const maxBytes of [0, -1, Number.NaN]) expect(() => new MemoryStore({ maxBytes })).toThrow(TypeError)
    expect(() => new MemoryStore({ maxEntryBytes: 0 })).toThrow(TypeError)
  })
})

test('the least recently used goes first', async () => {
  const size = sizeOf('k0', 10_000)
  const store = new MemoryStore({ maxBytes: 3 * size, maxEntryBytes: size })
  for (const key of ['k0', 'k1', 'k2']) await put(store, key, Buffer.alloc(10_000))
  await store.get('k0')
  await put(store, 'k3', Buffer.alloc(10_000))
  const present = await Promise.all(['k0', 'k1', 'k2', 'k3'].map(async (key) => (await store.get(key)) !== undefined))
  // A write in pieces may take a little more than its bytes while it goes on, so one or two have gone.
  expect(present[0]).toBe(true)
  expect(present[1]).toBe(false)
  expect(present[3]).toBe(true)
  expect(store.stats()).toMatchObject({ hits: 1 + present.filter(Boolean).length, misses: present.filter((there) => !there).length })
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

describe('any order of operations', () => {
  const runs = Number(process.env.CACHE_FUZZ_RUNS ?? 30)
  const firstSeed = Number(process.env.CACHE_FUZZ_SEED ?? (Date.now() % 1_000_000) + 1)

  test(`keeps the bound, the LRU order and every byte (seeds ${firstSeed} to ${firstSeed + runs - 1})`, async () => {
    for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
      try {
        await randomOperations(seed)
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error })
      }
    }
  })

  async function randomOperations(seed: number): Promise<void> {
    const random = randomFrom(seed)
    const pick = (n: number): number => Math.floor(random() * n)
    const maxBytes = 20_000 + pick(400_000)
    const store = new MemoryStore({ maxBytes, maxEntryBytes: Math.ceil(maxBytes / (1 + pick(6))) })
    /** Keys that were committed and not deleted, least recently used first. Evicted ones stay listed. */
    const order: string[] = []
    const bodies = new Map<string, Buffer>()
    const pending: { key: string; writer: CacheWriter; parts: Buffer[] }[] = []
    const used = (key: string): void => {
      const at = order.indexOf(key)
      if (at >= 0) order.splice(at, 1)
      order.push(key)
    }
    for (let step = 0; step < 300; step++) {
      const key = `key-${pick(12)}`
      const action = pick(10)
      if (action < 3) {
        const declared = random() < 0.5 ? pick(60_000) : undefined
        pending.push({ key, writer: store.put(key, declared === undefined ? meta : { ...meta, length: declared }), parts: [] })
      } else if (action < 7 && pending.length > 0) {
        const write = pending[pick(pending.length)]
        if (write === undefined) continue
        if (random() < 0.6) {
          const part = sampleBytes(pick(30_000), step + 1)
          write.parts.push(part)
          write.writer.write(part)
        } else {
          pending.splice(pending.indexOf(write), 1)
          if (random() < 0.2) write.writer.abort()
          else if (await write.writer.commit()) {
            bodies.set(write.key, Buffer.concat(write.parts))
            used(write.key)
          }
        }
      } else if (action === 7) {
        if ((await store.get(key)) !== undefined) used(key)
      } else if (action === 8) {
        const entry = await store.get(key)
        if (entry !== undefined) {
          expect(await store.touch(key, entry.version, { ...meta, headers: headers({ 'x-pad': 'p'.repeat(pick(500)) }) })).toBe(true)
          used(key)
        }
      } else {
        const at = order.indexOf(key)
        await store.delete(key)
        if (at >= 0) order.splice(at, 1)
      }
      expect(store.stats().bytes).toBeLessThanOrEqual(maxBytes)
      // Looking from the oldest to the newest leaves the order as it is.
      let seenOne = false
      const listed = order.slice()
      for (const one of listed) {
        const entry = await store.get(one)
        if (entry === undefined) {
          expect(seenOne, `${one} is gone while an older one is there`).toBe(false)
          order.splice(order.indexOf(one), 1)
        } else {
          seenOne = true
          const expected = bodies.get(one) as Buffer
          if (step % 10 === 0) expect(digest(await readAll(await entry.open(), 1 << 20))).toBe(digest(expected))
          else expect(entry.meta.length).toBe(expected.length)
        }
      }
      expect(store.stats().entries).toBe(order.length)
    }
    for (const { writer } of pending) writer.abort()
    for (const key of order) await store.delete(key)
    expect(store.stats()).toMatchObject({ bytes: 0, entries: 0 })
    await store.close()
    expect(store.stats().bytes).toBe(0)
  }
})
