import { type Body, type BodySink, type BodySource, type ByteRange, type Flow, LATIN1_MAX_BYTES, WholeBody } from '@proxy/pipeline'
import { writeAborted } from './errors.ts'

/** Bodies of unknown or large size are gathered in pieces of this size, so that memory is taken as bytes arrive. */
const SEGMENT_BYTES = 256 * 1024
/** A body of a declared length up to this is gathered in one piece. */
const ONE_PIECE_BYTES = 1024 * 1024

/**
 * A body in memory that is being written or has been: bytes are copied once, into pieces that belong to it alone
 * (the chunks that arrive are slices of socket buffers, which would be kept alive whole).
 */
export class SegmentBuffer {
  private segments: Buffer[] = []
  /** A small body that came in one chunk, in the form that it is kept in. */
  private text: string | undefined
  /** Bytes free in the last segment. */
  private free = 0
  length = 0
  private readonly declaredLength: number | undefined
  private state: 'open' | 'complete' | 'failed' = 'open'
  private readonly followers = new Set<Follower>()

  constructor(declaredLength: number | undefined) {
    this.declaredLength = declaredLength
  }

  /** Bytes of memory that appending a chunk of this size will take. */
  costOf(chunkBytes: number): number {
    return chunkBytes <= this.free ? 0 : this.segmentSize(chunkBytes - this.free, this.length + this.free)
  }

  append(chunk: Uint8Array): void {
    if (this.length === 0 && chunk.byteLength === this.declaredLength && chunk.byteLength <= LATIN1_MAX_BYTES) {
      this.text = (chunk instanceof Buffer ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)).toString('latin1')
      this.length = chunk.byteLength
    } else this.gather(chunk)
    for (const follower of this.followers) follower.pump()
  }

  private gather(chunk: Uint8Array): void {
    const head = Math.min(this.free, chunk.byteLength)
    if (head > 0) this.fill(chunk.subarray(0, head))
    if (head < chunk.byteLength) {
      const rest = chunk.subarray(head)
      this.free = this.segmentSize(rest.byteLength, this.length)
      this.segments.push(Buffer.allocUnsafeSlow(this.free))
      this.fill(rest)
    }
  }

  private fill(part: Uint8Array): void {
    const segment = this.segments[this.segments.length - 1] as Buffer
    segment.set(part, segment.byteLength - this.free)
    this.free -= part.byteLength
    this.length += part.byteLength
  }

  private segmentSize(atLeast: number, length: number): number {
    const declared = this.declaredLength
    if (declared !== undefined && declared <= ONE_PIECE_BYTES && length === 0) return Math.max(declared, atLeast)
    return Math.max(atLeast, Math.min(SEGMENT_BYTES, Math.max(4096, length)))
  }

  /** Ends writing. The body as it is kept from now on, in no more memory than it has bytes: text when small, one buffer when moderate, pieces when large. */
  complete(): Body {
    this.state = 'complete'
    const { length } = this
    if (this.text !== undefined) {
      for (const follower of this.followers) follower.pump()
      return new WholeBody(this.text)
    }
    const last = this.segments.length - 1
    if (length <= ONE_PIECE_BYTES) {
      if (last > 0 || this.free > 0) this.segments = [joined(this.segments, length)]
    } else if (this.free > 0) {
      const segment = this.segments[last] as Buffer
      this.segments[last] = joined([segment], segment.byteLength - this.free)
    }
    this.free = 0
    for (const follower of this.followers) follower.pump()
    const [first] = this.segments
    if (first === undefined) return new WholeBody('')
    if (this.segments.length > 1) return new SegmentsBody(this.segments, length)
    return new WholeBody(length <= LATIN1_MAX_BYTES ? first.toString('latin1') : first)
  }

  fail(): void {
    this.state = 'failed'
    for (const follower of this.followers) follower.pump()
    this.segments = []
    this.text = undefined
    this.length = 0
  }

  /** What has been written from `offset` on and what is still to come. */
  readFrom(offset: number): BodySource {
    return new Follower(this, this.followers, offset)
  }

  /** The contiguous bytes at `offset`, as far as they have been written. */
  at(offset: number): Buffer | undefined {
    if (this.text !== undefined) return offset < this.length ? Buffer.from(this.text, 'latin1').subarray(offset) : undefined
    let start = 0
    for (const segment of this.segments) {
      const written = Math.min(segment.byteLength, this.length - start)
      if (offset < start + written) return segment.subarray(offset - start, written)
      start += segment.byteLength
    }
    return undefined
  }

  get progress(): 'open' | 'complete' | 'failed' {
    return this.state
  }
}

/** The first `length` bytes of `segments` in memory of their own. */
function joined(segments: readonly Buffer[], length: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(length)
  let at = 0
  for (const segment of segments) at += segment.copy(bytes, at)
  return bytes
}

/** Reads a buffer that may still be growing. */
class Follower implements BodySource, Flow {
  private readonly buffer: SegmentBuffer
  private readonly registry: Set<Follower>
  private offset: number
  private sink: BodySink | undefined
  private paused = false
  private pumping = false

  constructor(buffer: SegmentBuffer, registry: Set<Follower>, offset: number) {
    this.buffer = buffer
    this.registry = registry
    this.offset = offset
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.registry.add(this)
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
    this.registry.delete(this)
  }

  pump(): void {
    // A sink may resume from inside data(): the loop below goes on by itself then.
    if (this.pumping) return
    this.pumping = true
    while (this.sink !== undefined && !this.paused) {
      const bytes = this.buffer.at(this.offset)
      if (bytes === undefined) break
      this.offset += bytes.byteLength
      if (!this.sink.data(bytes)) this.paused = true
    }
    this.pumping = false
    const { sink } = this
    if (sink === undefined || this.buffer.progress === 'open') return
    if (this.buffer.progress === 'failed') {
      this.abort()
      sink.error(writeAborted())
    } else if (this.offset >= this.buffer.length) {
      this.abort()
      sink.end()
    }
  }
}

/** A large body in memory: pieces, sent as fast as the reader takes them. Can be sent any number of times. */
export class SegmentsBody implements BodySource {
  readonly length: number
  private readonly segments: readonly Buffer[]

  constructor(segments: readonly Buffer[], length: number) {
    this.segments = segments
    this.length = length
  }

  start(sink: BodySink): Flow {
    return new SegmentsFlow(this.segments, sink)
  }

  discard(): void {}

  slice(range: ByteRange): SegmentsBody {
    const parts: Buffer[] = []
    let start = 0
    for (const segment of this.segments) {
      const from = Math.max(range.start - start, 0)
      const to = Math.min(range.end + 1 - start, segment.byteLength)
      if (from < to) parts.push(segment.subarray(from, to))
      start += segment.byteLength
    }
    return new SegmentsBody(parts, range.end - range.start + 1)
  }
}

class SegmentsFlow implements Flow {
  private readonly segments: readonly Buffer[]
  private readonly sink: BodySink
  private next = 0
  private running = false
  private done = false

  constructor(segments: readonly Buffer[], sink: BodySink) {
    this.segments = segments
    this.sink = sink
    this.resume()
  }

  resume(): void {
    if (this.running || this.done) return
    this.running = true
    let wanted = true
    while (wanted && !this.done && this.next < this.segments.length) wanted = this.sink.data(this.segments[this.next++] as Buffer)
    this.running = false
    if (!this.done && this.next === this.segments.length) {
      this.done = true
      this.sink.end()
    }
  }

  abort(): void {
    this.done = true
  }
}

/** Part of a body that a memory store keeps. */
export function sliceBody(body: Body, range: ByteRange): Body {
  if (body instanceof SegmentsBody) return body.slice(range)
  const whole = body as WholeBody
  return new WholeBody(whole.latin1 !== undefined ? whole.latin1.slice(range.start, range.end + 1) : (whole.bytes as Uint8Array).subarray(range.start, range.end + 1))
}
