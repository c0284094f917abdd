import { type BodySink, type BodySource, type Flow, ProxyError, toSource } from '@proxy/pipeline'
import { SharedReader } from './shared-reader.ts'
import type { CacheStore, CacheWriter } from './store.ts'

export interface SharedBodyOptions {
  readonly store: CacheStore
  readonly key: string
  /** Receives every byte. */
  readonly writer: CacheWriter
  /** Bytes of the body, when the origin declared them. */
  readonly length: number | undefined
  /** Bytes held for readers at most, beyond one chunk. */
  readonly windowBytes: number
  /** Larger bodies are passed on but not kept. */
  readonly maxObjectBytes: number
  /** Bytes that may still be read for the store's sake alone once every reader has left. */
  readonly finishBytes: number
  /** Told once: the body has ended and its commit is settled, or it has failed. */
  readonly onSettled: (stored: boolean) => void
}

/**
 * One body from the origin, written to the store and read by any number of clients while it arrives.
 *
 * It advances at the pace of the fastest reader. What arrived lately is held in a window of bounded size; a reader that falls behind it goes on from the
 * write under way (`readFrom`) or from the stored entry once that is committed, so a slow client costs no memory and slows nobody. Where nothing is kept
 * any more, the slowest reader sets the pace instead. When all readers have left, the rest is still fetched while it is small.
 */
export class SharedBody implements BodySink {
  private readonly options: SharedBodyOptions
  private writer: CacheWriter | undefined
  /** Readers that live on the window. */
  private readonly readers = new Set<SharedReader>()
  /** Readers that fell behind it and are still reading. */
  private readonly followers = new Set<SharedReader>()
  private readonly window: Uint8Array[] = []
  private windowBytes = 0
  /** Number of the first chunk in the window. */
  private first = 0
  private received = 0
  /** Bytes received when the last reader left. */
  private abandonedAt: number | undefined
  private flow: Flow | undefined
  private blockedOnWriter = false
  private readonly settled: Promise<boolean>
  private settle!: (stored: boolean) => void
  /** `ended`: whole; `failed`: never will be, see `failure`. */
  state: 'open' | 'ended' | 'failed' = 'open'
  failure: ProxyError | undefined

  constructor(options: SharedBodyOptions) {
    this.options = options
    this.writer = options.writer
    this.settled = new Promise((resolve) => {
      this.settle = resolve
    })
  }

  /** Starts reading the origin's body. */
  begin(source: BodySource): void {
    this.flow = source.start(this)
    if (this.state === 'failed') this.flow.abort()
    else this.advance()
  }

  /** One client's view of the body, from its first byte on. Undefined when those bytes are no longer to be had. */
  reader(): BodySource | undefined {
    if (this.state === 'failed' || (this.first > 0 && this.writer === undefined)) return undefined
    const reader = new SharedReader(this, this.options.length)
    this.abandonedAt = undefined
    this.readers.add(reader)
    return reader
  }

  data(chunk: Uint8Array): boolean {
    if (this.state !== 'open') return false
    this.received += chunk.byteLength
    if (this.writer !== undefined) {
      if (this.received > this.options.maxObjectBytes) this.stopStoring()
      else if (!this.writer.write(chunk)) this.waitForWriter(this.writer)
    }
    this.window.push(chunk)
    this.windowBytes += chunk.byteLength
    for (const reader of this.readers) reader.pump()
    this.trim()
    if (this.abandonedAt !== undefined && this.received - this.abandonedAt > this.options.finishBytes) {
      this.giveUp()
      return false
    }
    return this.wantsMore()
  }

  end(): void {
    if (this.state !== 'open') return
    this.state = 'ended'
    const committed = this.writer === undefined ? Promise.resolve(false) : this.writer.commit()
    // By the store's contract a commit never rejects; one that does counts as not stored.
    void committed
      .catch(() => false)
      .then((stored) => {
        this.settle(stored)
        this.options.onSettled(stored)
      })
    for (const reader of this.readers) reader.pump()
  }

  error(error: ProxyError): void {
    if (this.state !== 'open') return
    this.state = 'failed'
    this.failure = error
    this.writer?.abort()
    this.writer = undefined
    this.settle(false)
    this.options.onSettled(false)
    for (const reader of this.readers) reader.pump()
    this.window.length = 0
  }

  // What readers call.

  chunk(number: number): Uint8Array | undefined {
    return this.window[number - this.first]
  }

  /** Number that the next chunk to arrive will have. */
  get nextChunk(): number {
    return this.first + this.window.length
  }

  /** A reader wants more than there is. */
  advance(): void {
    if (this.state === 'open' && this.wantsMore()) this.flow?.resume()
  }

  /** A reader has got everything, or its client has left. */
  detach(reader: SharedReader): void {
    const was = this.readers.delete(reader) || this.followers.delete(reader)
    if (!was || this.state !== 'open') return
    if (this.readers.size + this.followers.size > 0) this.advance()
    else this.abandoned()
  }

  /** The bytes from `offset` on, for a reader that fell behind the window. */
  async rest(offset: number): Promise<BodySource> {
    const following = this.writer?.readFrom?.(offset)
    if (following !== undefined) return toSource(following)
    const { key, store } = this.options
    const entry = (await this.settled) ? await store.get(key, { body: { start: offset, end: Number.MAX_SAFE_INTEGER } }) : undefined
    if (entry === undefined || entry.meta.length !== this.received) {
      entry?.discard()
      throw new ProxyError('a slow reader fell behind a response that is not kept', { code: 'CACHE_READER_LOST', status: 502, source: 'proxy' })
    }
    return toSource(await entry.open({ start: offset, end: entry.meta.length - 1 }))
  }

  private wantsMore(): boolean {
    if (this.blockedOnWriter) return false
    if (this.readers.size === 0) return true
    for (const reader of this.readers) if (reader.hungry) return true
    return this.windowBytes < this.options.windowBytes
  }

  /** Keeps the window within its bound: drops what all readers have had and then, as long as the bytes are kept elsewhere too, what only slow ones still need. */
  private trim(): void {
    while (this.windowBytes > this.options.windowBytes && this.window.length > 1) {
      let needed = false
      let hungry = false
      for (const reader of this.readers) {
        if (reader.next <= this.first) needed = true
        if (reader.hungry) hungry = true
      }
      // Either nobody is ahead, and wantsMore() pauses the origin instead, or only the window has these bytes.
      if (needed && (!hungry || this.writer === undefined)) return
      this.windowBytes -= (this.window.shift() as Uint8Array).byteLength
      this.first++
      if (!needed) continue
      for (const reader of this.readers) {
        if (reader.next >= this.first) continue
        this.readers.delete(reader)
        this.followers.add(reader)
        reader.fallBehind()
      }
    }
  }

  private stopStoring(): void {
    this.writer?.abort()
    this.writer = undefined
    if (this.abandonedAt !== undefined) this.giveUp()
  }

  private waitForWriter(writer: CacheWriter): void {
    this.blockedOnWriter = true
    void writer.drained().then(() => {
      this.blockedOnWriter = false
      this.advance()
    })
  }

  private abandoned(): void {
    const { length, finishBytes } = this.options
    if (this.writer === undefined || (length !== undefined && length - this.received > finishBytes)) {
      this.giveUp()
      return
    }
    this.abandonedAt = this.received
    this.advance()
  }

  private giveUp(): void {
    this.flow?.abort()
    this.error(new ProxyError('every reader of the fill has left', { code: 'CACHE_FILL_ABANDONED', status: 499, source: 'client' }))
  }
}
