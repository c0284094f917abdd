import { BLOCK_BYTES, BLOCK_OVERHEAD_BYTES, BlockEncoder } from '@proxy/cache/blocks'

const FRAME_BYTES = BLOCK_BYTES + BLOCK_OVERHEAD_BYTES
/** What is written at a time. */
const FLUSH_BYTES = 256 * 1024
const NONE = Buffer.alloc(0)

/** The bytes of a write that do not lie in its file yet: framed as blocks, gathered into batches, and readable all the while. */
export class WriteBuffer {
  private readonly encoder: BlockEncoder
  private frames: Buffer[] = []
  /** What was gathered of frames and is on its way to the file, in order. */
  private batches: Buffer[] = []
  private gathered = 0

  constructor(version: string) {
    this.encoder = new BlockEncoder(version)
  }

  /** Bytes of body that were taken. */
  get length(): number {
    return this.encoder.length
  }

  /** There is enough for a batch. */
  get isFull(): boolean {
    return this.gathered >= FLUSH_BYTES
  }

  get isEmpty(): boolean {
    return this.frames.length === 0
  }

  push(chunk: Uint8Array): void {
    for (const frame of this.encoder.push(ownBytes(chunk))) this.add(frame)
  }

  /** Frames what is left: nothing is pushed any more. */
  finish(): void {
    const last = this.encoder.flush()
    if (last !== undefined) this.add(last)
  }

  /** What was gathered, for the file, behind `head`. It can be read here until `written`. */
  nextBatch(head: Buffer = NONE): Buffer {
    const bytes = Buffer.concat([head, ...this.frames])
    this.frames = []
    this.gathered = 0
    this.batches.push(bytes.subarray(head.byteLength))
    return bytes
  }

  /** The oldest batch lies in the file. Gives the bytes of body in whole blocks of it: a shorter block is the last one, and counts once the write is complete. */
  written(): number {
    const bytes = this.batches.shift()?.byteLength ?? 0
    return Math.floor(bytes / FRAME_BYTES) * BLOCK_BYTES
  }

  clear(): void {
    this.frames = []
    this.batches = []
  }

  /** Some of the bytes from `offset` on, of which those before `available` lie in the file; none where there are none. */
  read(offset: number, available: number): Uint8Array[] {
    let start = available
    for (const framed of [...this.batches, ...this.frames]) {
      const bytes = framed.byteLength - Math.ceil(framed.byteLength / FRAME_BYTES) * BLOCK_OVERHEAD_BYTES
      const skip = offset - start
      if (skip < bytes) {
        const frame = Math.floor(skip / BLOCK_BYTES) * FRAME_BYTES
        return [framed.subarray(frame + BLOCK_OVERHEAD_BYTES + (skip % BLOCK_BYTES), frame + FRAME_BYTES)]
      }
      start += bytes
    }
    const parts: Uint8Array[] = []
    for (const part of this.encoder.unfinished) {
      if (offset - start < part.byteLength) parts.push(part.subarray(Math.max(0, offset - start)))
      start += part.byteLength
    }
    return parts
  }

  private add(frame: Buffer): void {
    this.frames.push(frame)
    this.gathered += frame.byteLength
  }
}

/** A chunk is often a slice of a socket's buffer, all of which it keeps alive: what is small in something large is copied, so that what is counted is what is held. */
function ownBytes(chunk: Uint8Array): Uint8Array {
  return chunk.byteLength * 2 < chunk.buffer.byteLength ? Buffer.from(chunk) : chunk
}
