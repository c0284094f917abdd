import { randomBytes } from 'node:crypto'
import type { Body, ByteRange } from '@proxy/pipeline'
import { metaBytes } from './entry-bytes.ts'
import type { Eviction, Resident } from './eviction.ts'
import { Lru } from './lru.ts'
import { type MemoryBudget, MemoryWriter } from './memory-writer.ts'
import { S3Fifo } from './s3-fifo.ts'
import { sliceBody } from './segments.ts'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta } from './store.ts'

export interface MemoryStoreOptions {
  /** Bound of everything held: bodies, also of writes under way, metadata and keys. Default 64 MiB. */
  readonly maxBytes?: number
  /** Larger responses are not kept. Default: an eighth of `maxBytes`. */
  readonly maxEntryBytes?: number
  /**
   * Which entry goes first. `s3-fifo` (default) keeps what is asked for repeatedly when much is asked for once, as by a crawl; `lru` is the least recently
   * used, better where each response is popular for a short while only.
   */
  readonly eviction?: EvictionPolicy
}

export type EvictionPolicy = 's3-fifo' | 'lru'

export interface MemoryStoreStats {
  readonly entries: number
  readonly bytes: number
  readonly maxBytes: number
  readonly hits: number
  readonly misses: number
  readonly evictions: number
  /** Writes that were refused because of their size or for want of room. */
  readonly refused: number
  /** Of bodies that were asked for, and of those that were stored. */
  readonly bytesServed: number
  readonly bytesWritten: number
}

/** Entries that a sweep looks at before others get their turn. */
const SWEEP_SLICE = 1000

/** A committed entry. It is what `get` resolves to: a hit allocates nothing. */
class Node implements CacheEntry, Resident {
  // What a hit needs comes first, side by side.
  newer: Resident | undefined
  older: Resident | undefined
  mark = 0
  private itself: Promise<Node> | undefined
  private whole: Promise<Body> | undefined
  readonly meta: StoredMeta
  readonly body: Body
  readonly key: string
  readonly bytes: number
  readonly version: string

  constructor(key: string, version: string, meta: StoredMeta, body: Body, bytes: number) {
    this.key = key
    this.version = version
    this.meta = meta
    this.body = body
    this.bytes = bytes
  }

  get found(): Promise<Node> {
    return (this.itself ??= Promise.resolve(this))
  }

  open(range?: ByteRange): Promise<Body> {
    if (range === undefined) return (this.whole ??= Promise.resolve(this.body))
    if (range.start >= this.meta.length) return Promise.reject(new RangeError(`the body has ${this.meta.length} bytes, byte ${range.start} was asked for`))
    return Promise.resolve(sliceBody(this.body, { start: range.start, end: Math.min(range.end, this.meta.length - 1) }))
  }

  discard(): void {}
}

/** Cache in the memory of this process: bounded in bytes, every operation O(1), no timers. */
export class MemoryStore implements CacheStore {
  readonly guarded = true
  private readonly maxBytes: number
  private readonly maxEntryBytes: number
  private readonly nodes = new Map<string, Node>()
  private eviction: Eviction
  private bytes = 0
  /** The part of `bytes` that writes under way hold. */
  private pendingBytes = 0
  private closed = false
  private writes = 0
  /** Tells this store's versions from those of another one, such as the next tier. Short: V8 keeps a joined text of 13 characters and more as its parts. */
  private readonly id = randomBytes(4).toString('base64url')
  private hits = 0
  private misses = 0
  private evictions = 0
  private refused = 0
  private bytesServed = 0
  private bytesWritten = 0
  private readonly nothing: Promise<undefined> = Promise.resolve(undefined)
  private readonly budget: MemoryBudget = {
    reserve: (bytes, entryBytes) => this.reserve(bytes, entryBytes),
    release: (bytes) => this.release(bytes),
    commit: (key, meta, body, length, bytes) => this.commit(key, meta, body, length, bytes)
  }

  /** Throws TypeError when a size is not a number above 0, and for an unknown policy. */
  constructor(options: MemoryStoreOptions = {}) {
    this.maxBytes = options.maxBytes ?? 64 * 1024 * 1024
    this.maxEntryBytes = Math.min(options.maxEntryBytes ?? Math.floor(this.maxBytes / 8), this.maxBytes)
    if (!(this.maxBytes > 0) || !(this.maxEntryBytes > 0)) throw new TypeError('maxBytes and maxEntryBytes must be numbers above 0')
    this.eviction = evictionOf(options.eviction ?? 's3-fifo', this.maxBytes)
  }

  get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    const node = this.nodes.get(key)
    if (node === undefined) {
      this.misses++
      return this.nothing
    }
    this.hits++
    this.bytesServed += wantedBytes(want?.body, node.meta.length)
    this.eviction.hit(node)
    return node.found
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    return new MemoryWriter(this.budget, key, meta)
  }

  touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    const node = this.nodes.get(key)
    if (node === undefined || node.version !== version) return Promise.resolve(false)
    // A new node, so that whoever holds the old one goes on seeing one consistent entry.
    const bytes = node.bytes - metaBytes(key, node.meta) + metaBytes(key, meta)
    this.replace(node, new Node(node.key, version, kept(meta, node.key, node.meta.length), node.body, bytes))
    this.bytes += bytes
    this.makeRoom(0)
    return Promise.resolve(true)
  }

  delete(key: string, version?: string): Promise<boolean> {
    const node = this.nodes.get(key)
    if (node === undefined || (version !== undefined && node.version !== version)) return Promise.resolve(false)
    this.remove(node)
    return Promise.resolve(true)
  }

  async sweep(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number> {
    let found = 0
    let seen = 0
    for (const node of this.nodes.values()) {
      if (matches(node.meta)) {
        found++
        if (!keep) this.remove(node)
      }
      if (++seen % SWEEP_SLICE === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    return found
  }

  close(): Promise<void> {
    this.closed = true
    this.nodes.clear()
    // Lets go of the entries.
    this.eviction = new Lru()
    this.bytes = this.pendingBytes
    return Promise.resolve()
  }

  stats(): MemoryStoreStats {
    return {
      entries: this.nodes.size,
      bytes: this.bytes,
      maxBytes: this.maxBytes,
      hits: this.hits,
      misses: this.misses,
      evictions: this.evictions,
      refused: this.refused,
      bytesServed: this.bytesServed,
      bytesWritten: this.bytesWritten
    }
  }

  private reserve(bytes: number, entryBytes: number): boolean {
    // Looked at first: entries are not evicted for a write that is refused all the same.
    if (this.closed || entryBytes > this.maxEntryBytes || this.pendingBytes + bytes > this.maxBytes) {
      this.refused++
      return false
    }
    this.makeRoom(bytes)
    this.bytes += bytes
    this.pendingBytes += bytes
    return true
  }

  private release(bytes: number): void {
    this.bytes -= bytes
    this.pendingBytes -= bytes
  }

  private commit(key: string, meta: CacheMeta, body: Body, length: number, bytes: number): boolean {
    if (this.closed) {
      this.release(bytes)
      return false
    }
    this.writes++
    this.pendingBytes -= bytes
    this.bytesWritten += length
    const version = `${this.id}${this.writes.toString(36)}`
    const before = this.nodes.get(key)
    if (before !== undefined) this.replace(before, new Node(before.key, version, kept(meta, before.key, length), body, bytes))
    else {
      const node = new Node(key, version, kept(meta, key, length), body, bytes)
      this.nodes.set(key, node)
      this.eviction.add(node)
    }
    return true
  }

  private makeRoom(bytes: number): void {
    while (this.bytes + bytes > this.maxBytes) {
      const out = this.eviction.evict()
      if (out === undefined) return
      this.nodes.delete(out.key)
      this.bytes -= out.bytes
      this.evictions++
    }
  }

  private remove(node: Node): void {
    this.nodes.delete(node.key)
    this.eviction.remove(node)
    this.bytes -= node.bytes
  }

  /** `after` has the key of `before`, not an equal one: the map goes on holding the first. */
  private replace(before: Node, after: Node): void {
    this.nodes.set(after.key, after)
    this.eviction.replace(before, after)
    this.bytes -= before.bytes
  }
}

function wantedBytes(wanted: GetOptions['body'], length: number): number {
  if (wanted === undefined || wanted === 'all') return length
  return wanted === 'none' ? 0 : Math.max(0, Math.min(wanted.end + 1, length) - wanted.start)
}

/** Keys of the cache contain the URL: kept as a part of the key it takes no memory of its own. */
function kept(meta: CacheMeta, key: string, length: number): StoredMeta {
  const { url } = meta
  // Cut out of this very key by the cache.
  if (meta.length === length && key.length - url.length === key.indexOf('|') + 1) return meta as StoredMeta
  const at = key.indexOf(url)
  return { ...meta, url: at < 0 ? url : key.slice(at, at + url.length), length }
}

function evictionOf(policy: EvictionPolicy, maxBytes: number): Eviction {
  if (policy === 's3-fifo') return new S3Fifo(maxBytes)
  if (policy === 'lru') return new Lru()
  throw new TypeError('eviction must be s3-fifo or lru')
}
