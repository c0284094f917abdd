import type { BodySink, BodySource, Flow, HeaderMap, ProxyError } from '@proxy/pipeline'

/** Two bodies as one: the second begins where the first has ended. */
export class SequenceBody implements BodySource, BodySink, Flow {
  readonly length: number | undefined
  private current: BodySource
  private second: BodySource | undefined
  private sink: BodySink | undefined
  private flow: Flow | undefined

  constructor(first: BodySource, second: BodySource, length: number | undefined) {
    this.current = first
    this.second = second
    this.length = length
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.begin()
    return this
  }

  discard(): void {
    this.current.discard()
    this.second?.discard()
  }

  data(chunk: Uint8Array): boolean {
    return this.sink?.data(chunk) ?? false
  }

  end(trailers?: HeaderMap): void {
    const { second } = this
    if (second === undefined) {
      this.finish()?.end(trailers)
      return
    }
    this.second = undefined
    this.current = second
    this.begin()
  }

  error(error: ProxyError): void {
    this.second?.discard()
    this.finish()?.error(error)
  }

  resume(): void {
    this.flow?.resume()
  }

  abort(): void {
    const { flow } = this
    this.second?.discard()
    this.finish()
    flow?.abort()
  }

  private begin(): void {
    const source = this.current
    const flow = source.start(this)
    // It may have ended, and the next one begun, before this returned.
    if (this.sink === undefined) flow.abort()
    else if (this.current === source) this.flow = flow
  }

  private finish(): BodySink | undefined {
    const { sink } = this
    this.sink = undefined
    this.second = undefined
    return sink
  }
}
