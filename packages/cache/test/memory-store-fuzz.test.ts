import { readAll } from '@proxy/pipeline'
import { expect, test } from 'vitest'
import { sampleBytes, sampleMeta } from '../src/conformance.ts'
import { metaBytes } from '../src/entry-bytes.ts'
import { type EvictionPolicy, MemoryStore } from '../src/memory-store.ts'
import type { CacheEntry, CacheMeta, CacheWriter } from '../src/store.ts'
import { digest, headers, randomFrom } from './support.ts'

const KEYS = 24

/** What a store should hold under a key, unless it was evicted. */
interface Expected {
  readonly meta: CacheMeta
  readonly body: Buffer
}

const runs = Number(process.env.CACHE_FUZZ_RUNS ?? 30)
const firstSeed = Number(process.env.CACHE_FUZZ_SEED ?? (Date.now() % 1_000_000) + 1)

test.each(['s3-fifo', 'lru'] as const)(`%s: any order of operations keeps the bound, the counters and every byte (seeds ${firstSeed} to ${firstSeed + runs - 1})`, async (eviction) => {
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    try {
      await randomOperations(eviction, seed)
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error })
    }
  }
})

async function randomOperations(eviction: EvictionPolicy, seed: number): Promise<void> {
  const random = randomFrom(seed)
  const pick = (n: number): number => Math.floor(random() * n)
  const maxBytes = 20_000 + pick(400_000)
  const store = new MemoryStore({ maxBytes, maxEntryBytes: Math.ceil(maxBytes / (1 + pick(6))), eviction })
  const expected = new Map<string, Expected>()
  const pending: { key: string; meta: CacheMeta; writer: CacheWriter; parts: Buffer[] }[] = []
  const held: { entry: CacheEntry; body: Buffer }[] = []
  const metaOf = (key: string): CacheMeta => sampleMeta({ url: `https://example.org/${key}`, headers: headers({ 'x-pad': 'p'.repeat(pick(500)) }) })
  const keyOf = (n: number): string => `default|https://example.org/key-${n}`
  /** Looks without asking for anything, which would change what goes next. */
  const present = async (): Promise<string[]> => {
    const keys: string[] = []
    await store.sweep(({ url }) => keys.push(`default|${url}`) > 0, true)
    return keys
  }
  let [hits, misses, gone] = [0, 0, 0]
  let before = new Set<string>()
  const get = async (key: string): Promise<CacheEntry | undefined> => {
    const entry = await store.get(key)
    if (entry === undefined) misses++
    else hits++
    expect(entry !== undefined, key).toBe(before.has(key))
    return entry
  }
  for (let step = 0; step < 400; step++) {
    const key = keyOf(pick(KEYS))
    const action = pick(12)
    let deleted: string | undefined
    if (action < 3) {
      const declared = random() < 0.5 ? pick(60_000) : undefined
      const meta = { ...metaOf(key.slice(28)), ...(declared !== undefined && { length: declared }) }
      pending.push({ key, meta, writer: store.put(key, meta), parts: [] })
    } else if (action < 7 && pending.length > 0) {
      const write = pending[pick(pending.length)] as (typeof pending)[number]
      if (random() < 0.6) {
        const part = sampleBytes(pick(30_000), step + 1)
        write.parts.push(part)
        write.writer.write(part)
      } else {
        pending.splice(pending.indexOf(write), 1)
        if (random() < 0.2) write.writer.abort()
        else if (await write.writer.commit()) {
          expected.set(write.key, { meta: write.meta, body: Buffer.concat(write.parts) })
          before.add(write.key)
        }
      }
    } else if (action < 9) {
      const entry = await get(key)
      if (entry !== undefined) held.push({ entry, body: (expected.get(key) as Expected).body })
    } else if (action === 9) {
      const entry = await get(key)
      if (entry !== undefined) {
        const meta = metaOf(key.slice(28))
        expect(await store.touch(key, entry.version, meta)).toBe(true)
        expected.set(key, { meta, body: (expected.get(key) as Expected).body })
        expect(await store.touch(key, `${entry.version}x`, meta)).toBe(false)
      }
    } else if (action === 10) {
      deleted = key
      expect(await store.delete(key)).toBe(before.has(key))
    } else if (held.length > 0) {
      // Whatever has become of the entry meanwhile.
      const [{ entry, body }] = held.splice(pick(held.length), 1) as [(typeof held)[number]]
      expect(entry.meta.length).toBe(body.length)
      expect(digest(await readAll(await entry.open(), 1 << 20))).toBe(digest(body))
    }
    const now = new Set(await present())
    for (const one of before) if (!now.has(one) && one !== deleted) gone++
    for (const one of now) expect(before.has(one), `${one} has come back`).toBe(true)
    before = now
    const { bytes, ...counted } = store.stats()
    expect(counted).toMatchObject({ entries: now.size, hits, misses, evictions: gone })
    expect(bytes).toBeLessThanOrEqual(maxBytes)
    const committed = [...now].reduce((sum, one) => sum + sizeOf(one, expected.get(one) as Expected), 0)
    if (pending.length === 0) expect(bytes).toBe(committed)
    else expect(bytes).toBeGreaterThanOrEqual(committed)
  }
  for (const { writer } of pending) writer.abort()
  for (const key of before) {
    const entry = await store.get(key)
    expect(digest(await readAll((await entry?.open()) ?? null, 1 << 20))).toBe(digest((expected.get(key) as Expected).body))
    await store.delete(key)
  }
  expect(store.stats()).toMatchObject({ bytes: 0, entries: 0 })
  for (const { entry, body } of held) expect(digest(await readAll(await entry.open(), 1 << 20))).toBe(digest(body))
  await store.close()
  expect(store.stats().bytes).toBe(0)
}

function sizeOf(key: string, { meta, body }: Expected): number {
  return metaBytes(key, meta) + body.length
}
