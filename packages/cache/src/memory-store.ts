import type { Body, ByteRange, HeaderMap } from '@proxy/pipeline'
import { SegmentBuffer, sliceBody } from './segments.ts'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, StoredMeta } from './store.ts'

export interface MemoryStoreOptions {
  /** Bound of everything held: bodies, also of writes under way, metadata and keys. Default 64 MiB. */
  readonly maxBytes?: number
  /** Larger responses are not kept. Default: an eighth of `maxBytes`. */
  readonly maxEntryBytes?: number
}

export interface MemoryStoreStats {
  readonly entries: number
  readonly bytes: number
  readonly maxBytes: number
  readonly hits: number
  readonly misses: number
  readonly evictions: number
  /** Writes that were refused because of their size or for want of room. */
  readonly refused: number
}

/** Rough cost of an entry's objects beside its body, key and header text, in bytes. */
const ENTRY_OVERHEAD_BYTES = 600

/** A committed entry. It is what `get` returns: a hit allocates nothing. */
class Node implements CacheEntry {
  readonly key: string
  readonly version: string
  meta: StoredMeta
  readonly body: Body
  bytes: number
  newer: Node | undefined
  older: Node | undefined
  private whole: Promise<Body> | undefined

  constructor(key: string, version: string, meta: StoredMeta, body: Body, bytes: number) {
    this.key = key
    this.version = version
    this.meta = meta
    this.body = body
    this.bytes = bytes
  }

  open(range?: ByteRange): Promise<Body> {
    if (range === undefined) return (this.whole ??= Promise.resolve(this.body))
    if (range.start >= this.meta.length) return Promise.reject(new RangeError(`the body has ${this.meta.length} bytes, byte ${range.start} was asked for`))
    return Promise.resolve(sliceBody(this.body, { start: range.start, end: Math.min(range.end, this.meta.length - 1) }))
  }

  discard(): void {}
}

/** Cache in the memory of this process: bounded in bytes, least recently used out first, every operation O(1). */
export class MemoryStore implements CacheStore {
  private readonly maxBytes: number
  private readonly maxEntryBytes: number
  private readonly nodes = new Map<string, Node>()
  private newest: Node | undefined
  private oldest: Node | undefined
  private bytes = 0
  private writes = 0
  private hits = 0
  private misses = 0
  private evictions = 0
  private refused = 0
  private readonly nothing: Promise<undefined> = Promise.resolve(undefined)

  constructor(options: MemoryStoreOptions = {}) {
    this.maxBytes = options.maxBytes ?? 64 * 1024 * 1024
    this.maxEntryBytes = Math.min(options.maxEntryBytes ?? Math.floor(this.maxBytes / 8), this.maxBytes)
    if (!(this.maxBytes > 0)) throw new TypeError('maxBytes must be a positive number')
  }

  get(key: string): Promise<CacheEntry | undefined> {
    const node = this.nodes.get(key)
    if (node === undefined) {
      this.misses++
      return this.nothing
    }
    this.hits++
    if (node !== this.newest) {
      this.unlink(node)
      this.link(node)
    }
    return Promise.resolve(node)
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    return new MemoryWriter(this, key, meta)
  }

  touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    const node = this.nodes.get(key)
    if (node === undefined || node.version !== version) return Promise.resolve(false)
    // A new node, so that whoever holds the old one goes on seeing one consistent entry.
    const bytes = node.bytes - metaBytes(key, node.meta) + metaBytes(key, meta)
    this.remove(node)
    this.insert(new Node(key, version, { ...meta, length: node.meta.length }, node.body, bytes))
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

  close(): Promise<void> {
    this.nodes.clear()
    this.newest = this.oldest = undefined
    this.bytes = 0
    return Promise.resolve()
  }

  stats(): MemoryStoreStats {
    return { entries: this.nodes.size, bytes: this.bytes, maxBytes: this.maxBytes, hits: this.hits, misses: this.misses, evictions: this.evictions, refused: this.refused }
  }

  /** For writers: takes `bytes` out of the budget, evicting for them; false when there is no such room. */
  reserve(bytes: number, entryBytes: number): boolean {
    if (entryBytes > this.maxEntryBytes || !this.makeRoom(bytes)) {
      this.refused++
      return false
    }
    this.bytes += bytes
    return true
  }

  /** For writers: gives back what `reserve` took. */
  release(bytes: number): void {
    this.bytes -= bytes
  }

  /** For writers: makes an entry visible, whose bytes are reserved already. */
  commit(key: string, meta: CacheMeta, body: Body, length: number, bytes: number): void {
    const before = this.nodes.get(key)
    if (before !== undefined) this.remove(before)
    this.writes++
    this.insert(new Node(key, `m${this.writes}`, { ...meta, length }, body, bytes))
  }

  private makeRoom(bytes: number): boolean {
    while (this.bytes + bytes > this.maxBytes) {
      const victim = this.oldest
      if (victim === undefined) return false
      this.remove(victim)
      this.evictions++
    }
    return true
  }

  private insert(node: Node): void {
    this.nodes.set(node.key, node)
    this.link(node)
  }

  private remove(node: Node): void {
    this.nodes.delete(node.key)
    this.unlink(node)
    this.bytes -= node.bytes
  }

  private link(node: Node): void {
    node.older = this.newest
    if (this.newest !== undefined) this.newest.newer = node
    this.newest = node
    this.oldest ??= node
  }

  private unlink(node: Node): void {
    if (node.newer === undefined) this.newest = node.older
    else node.newer.older = node.older
    if (node.older === undefined) this.oldest = node.newer
    else node.older.newer = node.newer
    node.newer = node.older = undefined
  }
}

class MemoryWriter implements CacheWriter {
  private readonly store: MemoryStore
  private readonly key: string
  private readonly meta: CacheMeta
  private readonly buffer: SegmentBuffer
  private reserved = 0
  private state: 'open' | 'failed' | 'committed' = 'open'

  constructor(store: MemoryStore, key: string, meta: CacheMeta) {
    this.store = store
    this.key = key
    this.meta = meta
    this.buffer = new SegmentBuffer(meta.length)
    const overhead = metaBytes(key, meta)
    if (meta.v === 1 && store.reserve(overhead, overhead + (meta.length ?? 0))) this.reserved = overhead
    else this.state = 'failed'
  }

  write(chunk: Uint8Array): boolean {
    if (this.state !== 'open') return true
    const { meta, buffer } = this
    if ((meta.length !== undefined && buffer.length + chunk.byteLength > meta.length) || !this.store.reserve(chunk.byteLength, this.reserved + chunk.byteLength)) {
      this.abort()
      return true
    }
    this.reserved += chunk.byteLength
    buffer.append(chunk)
    return true
  }

  drained(): Promise<void> {
    return Promise.resolve()
  }

  commit(): Promise<boolean> {
    if (this.state !== 'open') return Promise.resolve(false)
    if (this.meta.length !== undefined && this.meta.length !== this.buffer.length) {
      this.abort()
      return Promise.resolve(false)
    }
    this.state = 'committed'
    this.store.commit(this.key, this.meta, this.buffer.complete(), this.buffer.length, this.reserved)
    return Promise.resolve(true)
  }

  abort(): void {
    if (this.state !== 'open') return
    this.state = 'failed'
    this.store.release(this.reserved)
    this.reserved = 0
    this.buffer.fail()
  }

  readFrom(offset: number): Body {
    return this.buffer.readFrom(offset)
  }
}

function metaBytes(key: string, meta: CacheMeta): number {
  return ENTRY_OVERHEAD_BYTES + 2 * key.length + meta.url.length + headerBytes(meta.headers)
}

function headerBytes(headers: Readonly<HeaderMap>): number {
  let bytes = 0
  for (const name in headers) {
    const value = headers[name]
    bytes += 32 + name.length
    if (typeof value === 'string') bytes += value.length
    else if (value !== undefined) for (const line of value) bytes += 16 + line.length
  }
  return bytes
}
