import type { BodySink, BodySource, Flow } from '@proxy/pipeline'
import { DiskError, toDiskError } from './errors.ts'

/** What is still to be read of a body. */
export interface BodyCursor {
  /** Bytes; Infinity where it is not known. */
  readonly remaining: number
}

/** What a body needs of the reader that made it. */
export interface BodyHost {
  readonly holdTimeoutMs: number
  /** The next bytes, within the deadline. */
  read(): Promise<Uint8Array[]>
  /** Lets go of the file. */
  release(): void
}

/** A body that is read from its file as its reader takes it. Its first bytes are read and verified before it exists; broken or missing ones later end it in an error. */
export class FileBody implements BodySource, Flow {
  readonly length: number
  private readonly cursor: BodyCursor
  private readonly host: BodyHost
  private held: Uint8Array[]
  private sink: BodySink | undefined
  private state: 'waiting' | 'started' | 'over' = 'waiting'
  private wanted = true
  private reading = false
  private delivering = false
  private readonly timer: NodeJS.Timeout

  /** `first`: what the cursor has brought already. */
  constructor(cursor: BodyCursor, first: Uint8Array[], host: BodyHost) {
    this.cursor = cursor
    this.host = host
    this.held = first
    this.length = cursor.remaining + first.reduce((sum, chunk) => sum + chunk.byteLength, 0)
    this.timer = setTimeout(() => this.abort(), host.holdTimeoutMs).unref()
  }

  start(sink: BodySink): Flow {
    if (this.state !== 'waiting') {
      sink.error(new DiskError('gone'))
      return this
    }
    clearTimeout(this.timer)
    this.state = 'started'
    this.sink = sink
    this.deliver()
    return this
  }

  discard(): void {
    this.abort()
  }

  resume(): void {
    this.wanted = true
    this.deliver()
  }

  abort(): void {
    this.sink = undefined
    this.finish()
  }

  private finish(): void {
    if (this.state === 'over') return
    clearTimeout(this.timer)
    this.state = 'over'
    this.held = []
    this.host.release()
  }

  private deliver(): void {
    if (this.delivering) return
    this.delivering = true
    while (this.sink !== undefined && this.wanted) {
      const chunk = this.held.shift()
      if (chunk === undefined) break
      if (!this.sink.data(chunk)) this.wanted = false
    }
    this.delivering = false
    if (this.sink === undefined || this.held.length > 0) return
    if (this.cursor.remaining === 0) this.end()
    else if (this.wanted && !this.reading) this.fetch()
  }

  private end(): void {
    const { sink } = this
    this.sink = undefined
    this.finish()
    sink?.end()
  }

  private fetch(): void {
    this.reading = true
    this.host.read().then(
      (chunks) => {
        this.reading = false
        if (this.state !== 'started') return
        this.held = chunks
        this.deliver()
      },
      (error: unknown) => {
        const { sink } = this
        this.sink = undefined
        this.finish()
        sink?.error(toDiskError(error))
      }
    )
  }
}
