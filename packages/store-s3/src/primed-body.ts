import type { BodySink, BodySource, Flow, ProxyError } from '@proxy/pipeline'
import { S3Error } from './errors.ts'

/**
 * A body whose first bytes are read and verified before anybody is told that it is there. It then waits, its source paused, until it is opened;
 * after `holdMs` it lets go of the source.
 */
export class PrimedBody implements BodySource, BodySink, Flow {
  readonly length: number
  private readonly source: BodySource
  private readonly holdMs: number
  private flow: Flow | undefined
  private sink: BodySink | undefined
  private held: Uint8Array[] = []
  private heldBytes = 0
  private outcome: ProxyError | 'end' | undefined
  private settle: { resolve(): void; reject(error: ProxyError): void } | undefined
  private timer: NodeJS.Timeout | undefined
  private state: 'waiting' | 'started' | 'over' = 'waiting'

  constructor(source: BodySource, length: number, holdMs: number) {
    this.source = source
    this.length = length
    this.holdMs = holdMs
  }

  /** Reads the first bytes. Rejects with what broke the body before they came. */
  prime(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.settle = { resolve, reject }
      this.flow = this.source.start(this)
    })
  }

  /** Whether its source was let go, or broke, before anybody came: read it anew. */
  get expired(): boolean {
    return this.state === 'over' || (this.outcome !== undefined && this.outcome !== 'end')
  }

  /** The body, when it has arrived whole; the source is then left to end by itself. */
  whole(): Buffer | undefined {
    if (this.heldBytes !== this.length) return undefined
    clearTimeout(this.timer)
    this.state = 'over'
    return this.held.length === 1 ? (this.held[0] as Buffer) : Buffer.concat(this.held)
  }

  start(sink: BodySink): Flow {
    if (this.state === 'over') {
      sink.error(new S3Error('aborted'))
      return this
    }
    clearTimeout(this.timer)
    this.state = 'started'
    this.sink = sink
    const { held, outcome } = this
    this.held = []
    let more = true
    for (const chunk of held) if (this.sink === sink) more = sink.data(chunk)
    if (this.sink !== sink) return this
    if (outcome === 'end') this.end()
    else if (outcome !== undefined) this.error(outcome)
    else if (more) this.resume()
    return this
  }

  discard(): void {
    this.abort()
  }

  resume(): void {
    this.flow?.resume()
  }

  abort(): void {
    clearTimeout(this.timer)
    this.state = 'over'
    this.sink = undefined
    this.held = []
    this.flow?.abort()
  }

  data(chunk: Uint8Array): boolean {
    if (this.sink !== undefined) return this.sink.data(chunk)
    this.held.push(chunk)
    this.heldBytes += chunk.byteLength
    this.timer ??= setTimeout(() => this.abort(), this.holdMs).unref()
    this.settle?.resolve()
    // What has arrived whole lets its connection go back to the others.
    return this.heldBytes === this.length
  }

  end(): void {
    this.outcome = 'end'
    this.settle?.resolve()
    const { sink } = this
    this.sink = undefined
    sink?.end()
  }

  error(error: ProxyError): void {
    clearTimeout(this.timer)
    this.outcome = error
    this.settle?.reject(error)
    const { sink } = this
    this.sink = undefined
    sink?.error(error)
  }
}
