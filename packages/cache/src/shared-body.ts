import type { BodySink, BodySource, Flow, ProxyError } from '@proxy/pipeline'
import { ChunkWindow, type Place } from './chunk-window.ts'
import { settledWithin } from './deadline.ts'
import { fillAbandoned, readerLost, wrongLength } from './errors.ts'
import { KeptCopy, type KeptCopyOptions, type KeptCopyOwner } from './kept-copy.ts'
import { Pace } from './pace.ts'
import { ReaderSet } from './reader-set.ts'
import { SharedReader } from './shared-reader.ts'

export interface SharedBodyOptions extends KeptCopyOptions {
  /** Bytes of the body, when the origin declared them. */
  readonly length: number | undefined
  /** Bytes held for readers at most, beyond one chunk. */
  readonly windowBytes: number
  /** Bytes that may still be read for the store's sake alone once every reader has left. */
  readonly finishBytes: number
  /** Nothing of the body is being kept any more: it should have no further readers. May be told more than once. */
  readonly onUnkept: () => void
}

/**
 * One body from the origin, written to the store and read by any number of clients while it arrives.
 *
 * It advances at the pace of the fastest reader. What arrived lately is held in a window of bounded size; a reader that falls behind it goes on from the
 * write under way (`readFrom`) or from the stored entry once that is committed, so a slow client costs no memory and slows nobody; one that catches up comes
 * back to the window. Where nothing is kept any more, the slowest reader on the window sets the pace instead, for as long as it does not try the patience of
 * the others. When all readers have left, the rest is still fetched while it is small.
 */
export class SharedBody implements BodySink, KeptCopyOwner {
  private readonly options: SharedBodyOptions
  private readonly copy: KeptCopy
  private readonly readers = new ReaderSet()
  private readonly window = new ChunkWindow()
  private readonly pace: Pace
  /** Bytes received when the last reader left. */
  private abandonedAt: number | undefined
  private flow: Flow | undefined
  /** The origin was told to wait. */
  private paused = false
  /** A chunk is being handed round: whether more is wanted is answered at the end of that. */
  private delivering = false
  /** `ended`: whole; `failed`: never will be. */
  state: 'open' | 'ended' | 'failed' = 'open'

  constructor(options: SharedBodyOptions) {
    this.options = options
    this.copy = new KeptCopy(options, this)
    this.pace = new Pace(options, this.window, this.readers, this.copy, this)
  }

  /** Bytes received so far. */
  get received(): number {
    return this.pace.received
  }

  /** Starts reading the origin's body. Gives the first reader's view of it. */
  begin(source: BodySource): BodySource {
    const leader = this.attach()
    this.flow = source.start(this)
    if (this.state === 'failed') this.flow.abort()
    else this.advance()
    return leader
  }

  /** One more client's view of the body, from its first byte on. Undefined when those bytes are not to be had at once. */
  reader(): BodySource | undefined {
    const isPast = this.window.first > 0
    if (this.state === 'failed' || (isPast && !this.copy.canFollow)) return undefined
    const reader = this.attach()
    if (isPast) reader.fallBehind()
    return reader
  }

  private attach(): SharedReader {
    const reader = new SharedReader(this, this.options.length)
    this.abandonedAt = undefined
    this.readers.add(reader)
    return reader
  }

  /** Bytes of the body, when the origin declared them. */
  get length(): number | undefined {
    return this.options.length
  }

  /** It turned out to be more than the store takes. */
  get outgrew(): boolean {
    return this.copy.outgrew
  }

  /** Resolves when the commit is settled, or with false when there will be none. */
  get settled(): Promise<boolean> {
    return this.copy.settled
  }

  /**
   * The same for somebody who can have the body from the store alone, and is not to wait for the pace of those who read it now. Waits for `waitMs` at most; the
   * pace is that of the readers again then. Resolves to whether it is settled.
   */
  async stored(waitMs: number): Promise<boolean> {
    let isSettled = false
    const note = async (): Promise<void> => {
      await this.copy.settled
      isSettled = true
    }
    this.pace.awaiting++
    this.advance()
    await settledWithin(note(), waitMs)
    this.pace.awaiting--
    return isSettled
  }

  /** Memory held for readers: at most `windowBytes` and one chunk. Bytes. */
  get heldBytes(): number {
    return this.window.heldBytes
  }

  // What the origin's body calls.

  data(chunk: Uint8Array): boolean {
    if (this.state !== 'open') return false
    if (chunk.byteLength === 0) return this.goOn()
    const { length, finishBytes } = this.options
    this.pace.received += chunk.byteLength
    if (length !== undefined && this.received > length) {
      this.flow?.abort()
      this.error(wrongLength(`more than the ${length} bytes that were declared`))
      return false
    }
    this.delivering = true
    this.copy.write(chunk)
    if (this.isOpen()) {
      this.window.push(chunk)
      for (const reader of this.readers) reader.pump()
      this.pace.trim()
    }
    this.delivering = false
    if (this.abandonedAt !== undefined && this.received - this.abandonedAt > finishBytes) this.giveUp()
    return this.isOpen() && this.goOn()
  }

  end(): void {
    if (this.state !== 'open') return
    const { length } = this.options
    if (length !== undefined && this.received !== length) {
      this.error(wrongLength(`${this.received} of the ${length} bytes that were declared`))
      return
    }
    this.state = 'ended'
    this.pace.stop()
    this.copy.commit()
    for (const reader of this.readers) reader.pump()
  }

  error(error: ProxyError): void {
    if (this.state !== 'open') return
    this.state = 'failed'
    this.pace.stop()
    this.window.clear()
    this.options.onUnkept()
    // Before the copy goes: readers of it would otherwise hear of that instead.
    for (const reader of this.readers) reader.fail(error)
    this.copy.abort()
  }

  // What readers call.

  chunk(number: number): Uint8Array | undefined {
    return this.window.chunk(number)
  }

  /** Number that the next chunk to arrive will have. */
  get nextChunk(): number {
    return this.window.next
  }

  /** Where on the window a reader goes on that has had `offset` bytes; undefined when it is behind. */
  place(offset: number): Place | undefined {
    return this.state === 'failed' ? undefined : this.window.place(offset)
  }

  /** A reader may want more than there is. */
  advance(): void {
    // Each of a thousand readers says so of each chunk: only the first of them is news.
    if (!this.paused || this.delivering || this.state !== 'open') return
    // Here the slowest reader sets the pace, and it may be the one who has just taken something.
    if (this.copy.isLost) this.pace.trim()
    if (!this.pace.wantsMore()) return
    this.paused = false
    this.flow?.resume()
  }

  /** A reader that is behind the window has had `offset` bytes. */
  passed(offset: number): void {
    if (this.pace.mayMatter(offset)) this.advance()
  }

  /** A reader has got everything, or its client has left. */
  detach(reader: SharedReader): void {
    if (!this.readers.delete(reader) || this.state !== 'open') return
    if (this.readers.size > 0) this.advance()
    else this.abandoned()
  }

  /** What is behind the window may be had from elsewhere, or will be. */
  get isKept(): boolean {
    return !this.copy.isLost
  }

  /** The bytes from `offset` on as the write under way gives them, where it can. */
  following(offset: number): BodySource | undefined {
    return this.copy.following(offset)
  }

  /** The bytes from `offset` on, once they are stored. Rejects when they are not. */
  storedFrom(offset: number): Promise<BodySource> {
    return this.copy.stored(offset)
  }

  // What the copy calls.

  drained(): void {
    this.advance()
  }

  /** Goes on for the readers alone. Those who are behind the window have nothing left to read from. */
  lost(): void {
    this.options.onUnkept()
    for (const reader of this.readers) {
      if (reader.onWindow) continue
      if (reader.catchUp()) reader.pump()
      else reader.fail(readerLost())
    }
    if (this.readers.size === 0) this.giveUp()
    else this.advance()
  }

  private isOpen(): boolean {
    return this.state === 'open'
  }

  /** The answer to the origin. */
  private goOn(): boolean {
    const more = this.pace.wantsMore()
    if (!more) this.paused = true
    return more
  }

  private abandoned(): void {
    const { length, finishBytes } = this.options
    if (this.copy.isLost || (length !== undefined && length - this.received > finishBytes)) {
      this.giveUp()
      return
    }
    this.abandonedAt = this.received
    this.advance()
  }

  private giveUp(): void {
    if (this.state !== 'open') return
    this.flow?.abort()
    this.error(fillAbandoned())
  }
}
