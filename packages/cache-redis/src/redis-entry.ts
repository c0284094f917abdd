import type { CacheEntry, StoredMeta } from '@proxy/cache'
import { BLOCK_BYTES, decodeBlock } from '@proxy/cache/blocks'
import { type Body, type BodySink, type BodySource, type ByteRange, type Flow, LATIN1_MAX_BYTES, type ProxyError, toProxyError, WholeBody } from '@proxy/pipeline'
import { redisError } from './errors.ts'
import type { DecodedHead } from './layout.ts'

/** Blocks that are asked for at once, and so held for one reader: 1 MiB of body. */
export const WINDOW_BLOCKS = 16

/** Blocks as they lie in Redis, from number `first` on. */
export interface Frames {
  readonly first: number
  readonly frames: readonly (Buffer | null)[]
}

/** What an entry needs of its store. */
export interface BlockAccess {
  /** Frames of the entry's version; rejects when that is no longer the one stored. */
  readBlocks(first: number, last: number): Promise<Frames>
  /** Removes the entry, which is not what was written. */
  dropBroken(error: ProxyError): void
}

export class RedisEntry implements CacheEntry {
  readonly version: string
  readonly meta: StoredMeta
  private readonly id: string
  private readonly access: BlockAccess
  private readonly held: Frames

  constructor(head: DecodedHead, access: BlockAccess, held: Frames) {
    this.version = head.version
    this.meta = head.meta
    this.id = head.id
    this.access = access
    this.held = held
  }

  open(range?: ByteRange): Promise<Body> {
    const { length } = this.meta
    if (range !== undefined && (range.start >= length || range.end < range.start)) {
      return Promise.reject(new RangeError(`bytes ${range.start}-${range.end} are not in a body of ${length} bytes`))
    }
    if (length === 0) return Promise.resolve(new WholeBody(''))
    const part = new Part(range?.start ?? 0, Math.min(range?.end ?? length - 1, length - 1))
    const last = Math.min(part.lastBlock, part.firstBlock + WINDOW_BLOCKS - 1)
    const { first, frames } = this.held
    if (part.firstBlock < first || last >= first + frames.length) return this.readWindow(part, part.firstBlock).then((chunks) => this.body(part, chunks))
    try {
      return Promise.resolve(this.body(part, this.verified(part, part.firstBlock, frames.slice(part.firstBlock - first, last - first + 1))))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  discard(): void {}

  /** The wanted bytes of the blocks from `block` on, one window of them, verified. */
  async readWindow(part: Part, block: number): Promise<Buffer[]> {
    const { first, frames } = await this.access.readBlocks(block, Math.min(part.lastBlock, block + WINDOW_BLOCKS - 1))
    return this.verified(part, first, frames)
  }

  private verified(part: Part, first: number, frames: readonly (Buffer | null)[]): Buffer[] {
    return frames.map((frame, i) => {
      const block = first + i
      const bytes = frame === null ? undefined : decodeBlock(this.id, block, frame)
      if (bytes === undefined || bytes.byteLength !== Math.min(BLOCK_BYTES, this.meta.length - block * BLOCK_BYTES)) {
        const error = redisError('STORE_BODY_BROKEN', `stored body: block ${block} is ${frame === null ? 'missing' : 'damaged'}`)
        this.access.dropBroken(error)
        throw error
      }
      return part.of(block, bytes)
    })
  }

  private body(part: Part, chunks: Buffer[]): Body {
    if (chunks.length > 1 || part.lastBlock > part.firstBlock) return new BlocksBody(this, part, chunks)
    const bytes = chunks[0] as Buffer
    return new WholeBody(bytes.byteLength <= LATIN1_MAX_BYTES ? bytes.toString('latin1') : bytes)
  }
}

/** The bytes of a body that were asked for. `end` inclusive. */
class Part {
  readonly start: number
  readonly end: number
  readonly firstBlock: number
  readonly lastBlock: number

  constructor(start: number, end: number) {
    this.start = start
    this.end = end
    this.firstBlock = Math.floor(start / BLOCK_BYTES)
    this.lastBlock = Math.floor(end / BLOCK_BYTES)
  }

  of(block: number, bytes: Buffer): Buffer {
    const offset = block * BLOCK_BYTES
    return bytes.subarray(Math.max(this.start - offset, 0), this.end + 1 - offset)
  }
}

/** A body of several blocks: the first window is there, verified; the next is asked for when the reader has taken this one. */
class BlocksBody implements BodySource, Flow {
  readonly length: number
  private readonly entry: RedisEntry
  private readonly part: Part
  private chunks: Buffer[]
  private next = 0
  private nextBlock: number
  private sink: BodySink | undefined
  private paused = false
  private busy = false

  constructor(entry: RedisEntry, part: Part, chunks: Buffer[]) {
    this.entry = entry
    this.part = part
    this.chunks = chunks
    this.length = part.end - part.start + 1
    this.nextBlock = part.firstBlock + chunks.length
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.pump()
    return this
  }

  discard(): void {}

  resume(): void {
    this.paused = false
    this.pump()
  }

  abort(): void {
    this.sink = undefined
    this.chunks = []
  }

  private pump(): void {
    // A sink may resume from inside data(): the loop below goes on by itself then.
    if (this.busy) return
    this.busy = true
    while (this.sink !== undefined && !this.paused && this.next < this.chunks.length) {
      if (!this.sink.data(this.chunks[this.next++] as Buffer)) this.paused = true
    }
    this.busy = false
    const { sink } = this
    if (sink === undefined || this.next < this.chunks.length) return
    if (this.nextBlock > this.part.lastBlock) {
      this.abort()
      sink.end()
    } else if (!this.paused) this.fetch()
  }

  private fetch(): void {
    this.busy = true
    this.entry.readWindow(this.part, this.nextBlock).then(
      (chunks) => {
        this.busy = false
        this.chunks = chunks
        this.next = 0
        this.nextBlock += chunks.length
        this.pump()
      },
      (error: unknown) => {
        const { sink } = this
        this.abort()
        sink?.error(toProxyError(error))
      }
    )
  }
}
