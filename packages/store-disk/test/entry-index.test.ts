import { randomBytes, randomInt } from 'node:crypto'
import { expect, test } from 'vitest'
import { blocksOf, DISK_BLOCK_BYTES, EntryIndex } from '../src/entry-index.ts'
import { ENTRY_WORDS, type Id, IndexShard, idHex, idWords } from '../src/index-shard.ts'

test('an id is the same in words and in hex', () => {
  for (const hex of ['00000000000000000000000000000000', 'ffffffffffffffffffffffffffffffff', '0123456789abcdef00000001f0000000']) {
    const shard = new IndexShard()
    shard.add(idWords(hex), 7, 9)
    expect(idHex(shard.words, 0)).toBe(hex)
  }
})

test('a shard does what a Map does, in whatever order', () => {
  const shard = new IndexShard()
  const model = new Map<string, { id: Id; stamp: number; blocks: number }>()
  // Few values in the word that decides where an entry lies, so that they collide and push each other on.
  const ids: Id[] = Array.from({ length: 400 }, (_, i) => [i, randomInt(5) + (randomInt(3) << 29), i * 7, i])
  for (let step = 0; step < 40_000; step++) {
    const id = ids[randomInt(ids.length)] as Id
    const key = id.join()
    const place = shard.find(id)
    expect(place >= 0).toBe(model.has(key))
    if (place < 0) {
      const entry = { id, stamp: step, blocks: randomInt(1, 1000) }
      model.set(key, entry)
      shard.add(id, entry.stamp, entry.blocks)
    } else {
      expect([shard.stampAt(place), shard.blocksAt(place)]).toEqual([model.get(key)?.stamp, model.get(key)?.blocks])
      if (randomInt(2) === 0) {
        model.delete(key)
        shard.removeAt(place)
      }
    }
    expect(shard.count).toBe(model.size)
  }
})

test('its size is the sum of the blocks, whatever happens', () => {
  const index = new EntryIndex()
  const model = new Map<string, number>()
  const ids = Array.from({ length: 500 }, () => randomBytes(16).toString('hex'))
  for (let step = 0; step < 20_000; step++) {
    const id = ids[randomInt(ids.length)] as string
    const dice = randomInt(10)
    if (dice < 6) {
      const blocks = blocksOf(randomInt(100_000))
      index.set(idWords(id), blocks)
      model.set(id, blocks)
    } else if (dice < 9) expect(index.remove(idWords(id))).toBe(model.delete(id))
    else {
      const evicted = index.evict()
      expect(evicted?.blocks).toBe(evicted && model.get(evicted.id))
      if (evicted !== undefined) model.delete(evicted.id)
    }
    expect(index.count).toBe(model.size)
  }
  let blocks = 0
  for (const one of model.values()) blocks += one
  expect(index.bytes).toBe(blocks * DISK_BLOCK_BYTES + model.size * 64)
})

test('it evicts nearly what was used least lately', () => {
  const index = new EntryIndex()
  const ids = Array.from({ length: 10_000 }, () => randomBytes(16).toString('hex'))
  for (const id of ids) index.set(idWords(id), 1)
  // The second half is used again, so the first is the older.
  for (const id of ids.slice(5000)) index.use(id)
  let wrong = 0
  const younger = new Set(ids.slice(5000))
  for (let i = 0; i < 4000; i++) if (younger.has(index.evict()?.id as string)) wrong++
  expect(wrong).toBeLessThan(40)
})

test('a stamp may wrap', () => {
  const index = new EntryIndex()
  index.tick = 2 ** 32 - 5
  const ids = Array.from({ length: 10 }, () => randomBytes(16).toString('hex'))
  for (const id of ids) index.set(idWords(id), 1)
  const first = Array.from({ length: 3 }, () => index.evict()?.id)
  expect(ids.slice(0, 8)).toEqual(expect.arrayContaining(first))
})

test('shards are copied and merged; what is there is newer', () => {
  const index = new EntryIndex()
  const ids = Array.from({ length: 3000 }, () => randomBytes(16).toString('hex'))
  for (const [i, id] of ids.entries()) index.set(idWords(id), i + 1)
  const other = new EntryIndex()
  other.set(idWords(ids[7] as string), 99)
  for (let shard = 0; shard < 256; shard++) other.mergeShard(shard, index.copyShard(shard))
  expect(other.count).toBe(3000)
  expect(other.blocksFor(ids[7] as string)).toBe(99)
  expect(other.blocksFor(ids[2999] as string)).toBe(3000)
  // Entries of another shard are none of this one's.
  const wrong = new EntryIndex()
  wrong.mergeShard(
    3,
    Uint32Array.from({ length: ENTRY_WORDS }, () => 0xff00_0000)
  )
  expect(wrong.count).toBe(0)
})
