/** Rough cost of a chunk's object beside its bytes: a body that comes in tiny pieces counts as what it takes. */
const CHUNK_OVERHEAD_BYTES = 128

/** A place in the window: the number of a chunk, and how many of its bytes lie before it. */
export interface Place {
  readonly chunk: number
  readonly skip: number
}

/** What has arrived lately of a body: chunks with consecutive numbers, dropped from the front. */
export class ChunkWindow {
  private readonly chunks: Uint8Array[] = []
  /** Number of the first chunk. */
  first = 0
  /** Where the first chunk lies in the body. Bytes. */
  start = 0
  /** What the window takes, overhead included. Bytes. */
  heldBytes = 0

  /** Number that the next chunk to arrive will have. */
  get next(): number {
    return this.first + this.chunks.length
  }

  get size(): number {
    return this.chunks.length
  }

  chunk(number: number): Uint8Array | undefined {
    return this.chunks[number - this.first]
  }

  push(chunk: Uint8Array): void {
    this.chunks.push(chunk)
    this.heldBytes += chunk.byteLength + CHUNK_OVERHEAD_BYTES
  }

  drop(): void {
    const { byteLength } = this.chunks.shift() as Uint8Array
    this.heldBytes -= byteLength + CHUNK_OVERHEAD_BYTES
    this.start += byteLength
    this.first++
  }

  clear(): void {
    this.chunks.length = 0
    this.heldBytes = 0
  }

  /** Where the bytes from `offset` on begin; undefined when they have been dropped, or when not all before them have come. */
  place(offset: number): Place | undefined {
    let skip = offset - this.start
    if (skip < 0) return undefined
    let number = this.first
    for (const { byteLength } of this.chunks) {
      if (skip < byteLength) return { chunk: number, skip }
      skip -= byteLength
      number++
    }
    return skip === 0 ? { chunk: number, skip } : undefined
  }
}
