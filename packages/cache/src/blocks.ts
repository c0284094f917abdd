import { crc32 } from 'node:zlib'
import { type Body, type BodySink, type BodySource, type ByteRange, type Flow, type ProxyError, toSource } from '@proxy/pipeline'
import { storedBodyBroken } from './errors.ts'

/**
 * The form in which stores keep bodies outside memory: blocks of at most 64 KiB, each behind a CRC-32 of its bytes and its number, so that every byte is verified
 * before it is handed out, ranges can be read alone, and a block from another place or another version does not pass.
 *
 * ```
 * block n:  u32be crc32(seed, bytes) | bytes   every block but the last is full
 * ```
 * The seed of block n is crc32(version, n). The body's length is kept beside the blocks by the store (in metadata or in a file's name or trailer).
 */
export const BLOCK_BYTES = 64 * 1024
export const BLOCK_OVERHEAD_BYTES = 4

/** Bytes that a body of `length` takes in blocks. */
export function framedLength(length: number): number {
  return length + Math.ceil(length / BLOCK_BYTES) * BLOCK_OVERHEAD_BYTES
}

/** The part of the framed bytes that holds `range` of a body of `length` bytes: whole blocks. `end` inclusive. */
export function framedRange(range: ByteRange, length: number): { start: number; end: number; firstBlock: number } {
  const firstBlock = Math.floor(range.start / BLOCK_BYTES)
  const lastBlock = Math.floor(range.end / BLOCK_BYTES)
  const frame = BLOCK_BYTES + BLOCK_OVERHEAD_BYTES
  return { start: firstBlock * frame, end: Math.min(framedLength(length), (lastBlock + 1) * frame) - 1, firstBlock }
}

const numberBytes = Buffer.alloc(4)

function checksum(versionSeed: number, block: number, bytes: Uint8Array): number {
  numberBytes.writeUInt32BE(block)
  return crc32(bytes, crc32(numberBytes, versionSeed))
}

/** Cuts a body into checksummed blocks. `push` returns the frames that became complete, `flush` the last one. */
export class BlockEncoder {
  private readonly seed: number
  private pending: Uint8Array[] = []
  private pendingBytes = 0
  private block = 0
  /** Bytes of body taken so far. */
  length = 0

  constructor(version: string) {
    this.seed = crc32(version)
  }

  push(chunk: Uint8Array): Buffer[] {
    const frames: Buffer[] = []
    this.length += chunk.byteLength
    let rest = chunk
    while (this.pendingBytes + rest.byteLength >= BLOCK_BYTES) {
      const take = BLOCK_BYTES - this.pendingBytes
      this.pending.push(rest.subarray(0, take))
      this.pendingBytes = BLOCK_BYTES
      frames.push(this.emit())
      rest = rest.subarray(take)
    }
    if (rest.byteLength > 0) {
      this.pending.push(rest)
      this.pendingBytes += rest.byteLength
    }
    return frames
  }

  /** The last, shorter block; undefined when the body ended on a block's edge. */
  flush(): Buffer | undefined {
    return this.pendingBytes === 0 ? undefined : this.emit()
  }

  /** The bytes of the block that is not full yet, for readers of what is being written. */
  get unfinished(): readonly Uint8Array[] {
    return this.pending
  }

  private emit(): Buffer {
    const frame = Buffer.allocUnsafe(BLOCK_OVERHEAD_BYTES + this.pendingBytes)
    let at = BLOCK_OVERHEAD_BYTES
    for (const part of this.pending) {
      frame.set(part, at)
      at += part.byteLength
    }
    frame.writeUInt32BE(checksum(this.seed, this.block++, frame.subarray(BLOCK_OVERHEAD_BYTES)), 0)
    this.pending = []
    this.pendingBytes = 0
    return frame
  }
}

/** The bytes of one whole frame, or undefined when they are not what was written as that block. */
export function decodeBlock(version: string, block: number, frame: Buffer): Buffer | undefined {
  if (frame.byteLength <= BLOCK_OVERHEAD_BYTES) return undefined
  const bytes = frame.subarray(BLOCK_OVERHEAD_BYTES)
  return frame.readUInt32BE(0) === checksum(crc32(version), block, bytes) ? bytes : undefined
}

export interface BlockReaderOptions {
  readonly version: string
  /** Bytes of the whole body. */
  readonly length: number
  /** The part of the body wanted; `framed` then holds the frames from `framedRange(range, length)`. Default: all of it. */
  readonly range?: ByteRange
  /** Told once when a block fails its check or the frames end early, before the reader's sink hears of it: the store removes the entry. */
  readonly onBroken?: () => void
}

/** Verifies framed bytes as they stream by and delivers the body in them. A broken or missing block ends in an error, never in a shorter body. */
export function readBlocks(framed: Body, options: BlockReaderOptions): BodySource {
  return new BlockReader(toSource(framed), options)
}

class BlockReader implements BodySource, BodySink {
  readonly length: number
  private readonly framed: BodySource
  private readonly options: BlockReaderOptions
  private readonly seed: number
  private readonly lastBlock: number
  private block: number
  /** Body bytes to leave out at the start of the first block. */
  private skip: number
  private remaining: number
  private parts: Uint8Array[] = []
  private partBytes = 0
  private sink: BodySink | undefined
  private flow: Flow | undefined
  private done = false

  constructor(framed: BodySource, options: BlockReaderOptions) {
    const range = options.range ?? { start: 0, end: options.length - 1 }
    const end = Math.min(range.end, options.length - 1)
    this.framed = framed
    this.options = options
    this.seed = crc32(options.version)
    this.block = Math.floor(range.start / BLOCK_BYTES)
    this.lastBlock = Math.ceil(options.length / BLOCK_BYTES) - 1
    this.skip = range.start - this.block * BLOCK_BYTES
    this.length = options.length === 0 ? 0 : end - range.start + 1
    this.remaining = this.length
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.flow = this.framed.start(this)
    if (this.done) this.flow.abort()
    return {
      resume: () => this.flow?.resume(),
      abort: () => {
        this.done = true
        this.flow?.abort()
      }
    }
  }

  discard(): void {
    this.framed.discard()
  }

  private frameBytes(): number {
    return BLOCK_OVERHEAD_BYTES + (this.block === this.lastBlock ? this.options.length - this.lastBlock * BLOCK_BYTES : BLOCK_BYTES)
  }

  data(chunk: Uint8Array): boolean {
    let rest = chunk
    let more = true
    while (!this.done && this.remaining > 0) {
      const need = this.frameBytes() - this.partBytes
      if (rest.byteLength < need) {
        if (rest.byteLength > 0) {
          this.parts.push(rest)
          this.partBytes += rest.byteLength
        }
        return more
      }
      this.parts.push(rest.subarray(0, need))
      rest = rest.subarray(need)
      if (!this.verified()) more = false
    }
    if (rest.byteLength > 0 && !this.done) this.broken(`${rest.byteLength} bytes more than the stored body has`)
    return more
  }

  /** Checks and delivers the block in `parts`; false when the sink wants a pause. */
  private verified(): boolean {
    const frame = this.parts.length === 1 ? (this.parts[0] as Uint8Array) : Buffer.concat(this.parts)
    this.parts = []
    this.partBytes = 0
    const bytes = Buffer.from(frame.buffer, frame.byteOffset + BLOCK_OVERHEAD_BYTES, frame.byteLength - BLOCK_OVERHEAD_BYTES)
    const expected = new DataView(frame.buffer, frame.byteOffset, BLOCK_OVERHEAD_BYTES).getUint32(0)
    if (expected !== checksum(this.seed, this.block, bytes)) {
      this.broken(`block ${this.block} is damaged`)
      return false
    }
    this.block++
    const wanted = bytes.subarray(this.skip, this.skip + this.remaining)
    this.skip = 0
    this.remaining -= wanted.byteLength
    return (this.sink as BodySink).data(wanted)
  }

  end(): void {
    if (this.done) return
    if (this.remaining > 0) {
      this.broken(`${this.remaining} bytes are missing`)
      return
    }
    this.done = true
    this.sink?.end()
  }

  error(error: ProxyError): void {
    if (this.done) return
    this.done = true
    this.sink?.error(error)
  }

  private broken(what: string): void {
    this.done = true
    this.flow?.abort()
    this.options.onBroken?.()
    this.sink?.error(storedBodyBroken(what))
  }
}
