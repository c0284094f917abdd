import type { Body } from '@proxy/pipeline'
import { metaBytes } from './entry-bytes.ts'
import { SegmentBuffer } from './segments.ts'
import type { CacheMeta, CacheWriter } from './store.ts'

/** What a writer needs of its store. */
export interface MemoryBudget {
  /** Takes `bytes` out of what the store may hold, evicting for them; false when there is no such room, or when an entry of `entryBytes` is too large. */
  reserve(bytes: number, entryBytes: number): boolean
  /** Gives back what `reserve` took. */
  release(bytes: number): void
  /** Makes an entry visible, whose bytes are reserved already. False, with the bytes given back, when the store has been closed. */
  commit(key: string, meta: CacheMeta, body: Body, length: number, bytes: number): boolean
}

/** One write to memory. It counts against the store's bound from its first byte, with the memory it takes rather than the bytes it has. */
export class MemoryWriter implements CacheWriter {
  private readonly store: MemoryBudget
  private readonly key: string
  private readonly meta: CacheMeta
  private readonly buffer: SegmentBuffer
  private readonly overhead: number
  private reserved = 0
  private state: 'open' | 'failed' | 'committed' = 'open'

  constructor(store: MemoryBudget, key: string, meta: CacheMeta) {
    this.store = store
    this.key = key
    this.meta = meta
    this.buffer = new SegmentBuffer(meta.length)
    this.overhead = metaBytes(key, meta)
    if (meta.v !== 1 || !this.reserve(this.overhead, meta.length ?? 0)) this.abort()
  }

  get failed(): boolean {
    return this.state === 'failed'
  }

  write(chunk: Uint8Array): boolean {
    if (this.state !== 'open') return true
    const { buffer, meta } = this
    const length = buffer.length + chunk.byteLength
    if ((meta.length !== undefined && length > meta.length) || !this.reserve(buffer.costOf(chunk.byteLength), length)) this.abort()
    else buffer.append(chunk)
    return true
  }

  private reserve(bytes: number, length: number): boolean {
    if (!this.store.reserve(bytes, this.overhead + length)) return false
    this.reserved += bytes
    return true
  }

  drained(): Promise<void> {
    return Promise.resolve()
  }

  commit(): Promise<boolean> {
    if (this.state !== 'open') return Promise.resolve(false)
    const { buffer, key, meta, overhead, store } = this
    const { length } = buffer
    if (meta.length !== undefined && meta.length !== length) {
      this.abort()
      return Promise.resolve(false)
    }
    const body = buffer.complete()
    const bytes = overhead + length
    store.release(this.reserved - bytes)
    this.reserved = 0
    const stored = store.commit(key, meta, body, length, bytes)
    this.state = stored ? 'committed' : 'failed'
    return Promise.resolve(stored)
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
