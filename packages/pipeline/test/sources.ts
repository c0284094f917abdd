import type { BodySink, BodySource, Flow, HeaderMap } from '../src/index.ts'

/** Bytes that differ along the way, so that a piece which is lost, doubled or moved shows. */
export function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8)) & 0xff
  return bytes
}

/** A body whose every step is told by the test, and which records what its reader asks for. */
export class ManualSource implements BodySource {
  length?: number
  sink: BodySink | undefined
  starts = 0
  discards = 0
  aborts = 0
  resumes = 0
  /** Called within `start`, before it returns. */
  private readonly onStart: ((sink: BodySink) => void) | undefined
  private readonly waiting: (() => void)[] = []

  constructor(onStart?: (sink: BodySink) => void, length?: number) {
    this.onStart = onStart
    if (length !== undefined) this.length = length
  }

  start(sink: BodySink): Flow {
    this.starts++
    this.sink = sink
    this.onStart?.(sink)
    this.wake()
    return {
      resume: () => {
        this.resumes++
      },
      abort: () => {
        this.aborts++
        this.wake()
      }
    }
  }

  discard(): void {
    this.discards++
    this.wake()
  }

  /** Resolves when the body was started, aborted or discarded so that `condition` holds. */
  async until(condition: (source: this) => boolean): Promise<void> {
    while (!condition(this)) await new Promise<void>((resolve) => this.waiting.push(resolve))
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve()
  }
}

/** Delivers `total` bytes in chunks, one per turn of the event loop, for as long as its reader takes them. */
export class FlowingSource implements BodySource {
  produced = 0
  paused = false
  aborted: Promise<void>
  readonly length: number | undefined
  private readonly total: number
  private readonly trailers: HeaderMap | undefined
  private reportAbort!: () => void

  constructor(total: number, options: { length?: number; trailers?: HeaderMap } = {}) {
    this.total = total
    this.length = options.length
    this.trailers = options.trailers
    this.aborted = new Promise((resolve) => {
      this.reportAbort = resolve
    })
  }

  start(sink: BodySink): Flow {
    const chunk = pattern(16_384)
    let over = false
    const next = (): void => {
      if (over || this.paused) return
      const bytes = Math.min(chunk.length, this.total - this.produced)
      this.produced += bytes
      if (bytes > 0 && !sink.data(chunk.subarray(0, bytes))) this.paused = true
      if (this.produced === this.total) {
        over = true
        sink.end(this.trailers)
      } else if (!this.paused) setImmediate(next)
    }
    setImmediate(next)
    return {
      resume: () => {
        if (!this.paused) return
        this.paused = false
        setImmediate(next)
      },
      abort: () => {
        over = true
        this.reportAbort()
      }
    }
  }

  discard(): void {
    this.reportAbort()
  }
}
