import { ENTRY_WORDS, type Id, IndexShard, idHex, idWords } from './index-shard.ts'

export const SHARDS = 256
/** What is counted for a file: whole blocks, as file systems give them out. */
export const DISK_BLOCK_BYTES = 4096
/** What the snapshot and journals take for an entry, roughly. */
const RECORD_BYTES = 64
/** Entries that are looked at for one eviction. */
const SAMPLES = 16

export const blocksOf = (bytes: number): number => Math.max(1, Math.ceil(bytes / DISK_BLOCK_BYTES))

export interface Evicted {
  readonly id: string
  readonly blocks: number
}

/**
 * Which files there are, how large they are and in which order they were last used: for eviction alone. Reads do not depend on it.
 * A stamp is a count of uses, so recency needs no clock; it may wrap, after which what was not used for four thousand million uses seems young.
 */
export class EntryIndex {
  private readonly shards = Array.from({ length: SHARDS }, () => new IndexShard())
  private blocks = 0
  count = 0
  /** The stamp of the next use. */
  tick = 0

  /** Bytes on disk: files and their records. */
  get bytes(): number {
    return this.blocks * DISK_BLOCK_BYTES + this.count * RECORD_BYTES
  }

  /** Blocks of an entry; 0 when it is not there. */
  blocksFor(id: string): number {
    const words = idWords(id)
    const shard = this.shardFor(words)
    const place = shard.find(words)
    return place < 0 ? 0 : shard.blocksAt(place)
  }

  /** Notes a use; false when the entry is not there. */
  use(id: string): boolean {
    const words = idWords(id)
    const shard = this.shardFor(words)
    const place = shard.find(words)
    if (place < 0) return false
    shard.setStamp(place, this.nextStamp())
    return true
  }

  /** Adds an entry or changes its size, as used just now. */
  set(id: Id, blocks: number): void {
    const shard = this.shardFor(id)
    const place = shard.find(id)
    if (place < 0) {
      shard.add(id, this.nextStamp(), blocks)
      this.count++
      this.blocks += blocks
      return
    }
    this.blocks += blocks - shard.blocksAt(place)
    shard.setBlocks(place, blocks)
    shard.setStamp(place, this.nextStamp())
  }

  remove(id: Id): boolean {
    const shard = this.shardFor(id)
    const place = shard.find(id)
    if (place < 0) return false
    this.drop(shard, place)
    return true
  }

  /** Removes one of the least recently used entries: the oldest of a sample (as Redis does), which needs no list in order of use. */
  evict(): Evicted | undefined {
    if (this.count === 0) return undefined
    let victim: IndexShard | undefined
    let victimPlace = 0
    let victimAge = -1
    for (let sample = 0; sample < SAMPLES; sample++) {
      let number = Math.floor(Math.random() * SHARDS)
      while ((this.shards[number] as IndexShard).count === 0) number = (number + 1) % SHARDS
      const shard = this.shards[number] as IndexShard
      const place = Math.floor(Math.random() * shard.count)
      const age = (this.tick - shard.stampAt(place)) >>> 0
      if (age <= victimAge) continue
      victim = shard
      victimPlace = place
      victimAge = age
    }
    const shard = victim as IndexShard
    const evicted = { id: idHex(shard.words, victimPlace * ENTRY_WORDS), blocks: shard.blocksAt(victimPlace) }
    this.drop(shard, victimPlace)
    return evicted
  }

  /** A shard's entries, for a snapshot. */
  copyShard(number: number): Uint32Array {
    return (this.shards[number] as IndexShard).copy()
  }

  /** Adds entries as `copyShard` gave them, but none that is there already: what is there is newer. */
  mergeShard(number: number, words: Uint32Array): void {
    const shard = this.shards[number] as IndexShard
    for (let at = 0; at + ENTRY_WORDS <= words.length; at += ENTRY_WORDS) {
      const id: Id = [words[at] as number, words[at + 1] as number, words[at + 2] as number, words[at + 3] as number]
      const blocks = words[at + 5] as number
      if (id[0] >>> 24 !== number || shard.find(id) >= 0) continue
      shard.add(id, words[at + 4] as number, blocks)
      this.count++
      this.blocks += blocks
    }
  }

  /** Entries of a shard that are older than `tick` and not among `seen`: they have no file. */
  unseen(number: number, seen: ReadonlySet<string>, tick: number): string[] {
    const shard = this.shards[number] as IndexShard
    const missing: string[] = []
    for (let place = 0; place < shard.count; place++) {
      const isOlder = (shard.stampAt(place) - tick) >>> 0 >= 0x8000_0000
      if (!isOlder) continue
      const id = idHex(shard.words, place * ENTRY_WORDS)
      if (!seen.has(id)) missing.push(id)
    }
    return missing
  }

  private drop(shard: IndexShard, place: number): void {
    this.blocks -= shard.blocksAt(place)
    this.count--
    shard.removeAt(place)
  }

  private nextStamp(): number {
    const stamp = this.tick
    this.tick = (stamp + 1) >>> 0
    return stamp
  }

  private shardFor(id: Id): IndexShard {
    return this.shards[id[0] >>> 24] as IndexShard
  }
}
