import { type Body, type BodySink, type BodySource, type Flow, type HeaderMap, type ProxyError, type ProxyRequest, toSource, WholeBody } from '@proxy/pipeline'
import type { Lease, Outcome } from './lease.ts'

/**
 * `body`, with `lease` released when its delivery has ended: at once for what is in memory already, otherwise when it has ended (`whenWhole`), broken off,
 * been aborted or been discarded.
 */
export function leaseUntilEnd(body: Body, lease: Lease, whenWhole: 'success' | 'failure', request: ProxyRequest): Body {
  if (body === null || body instanceof Uint8Array || body instanceof WholeBody) {
    lease.release(whenWhole)
    return body
  }
  return new LeasedBody(toSource(body), lease, whenWhole, request)
}

/** What failed with `error` on behalf of `request`: a client that has left is not the target's failure, and neither is a fault of this side. */
export function outcomeOf(error: ProxyError, request: ProxyRequest): Outcome {
  return error.source === 'upstream' && !request.signal.aborted ? 'failure' : 'aborted'
}

/** Source towards the reader, sink towards the target, and the reader's hold on the flow: one object per response instead of three. */
class LeasedBody implements BodySource, BodySink, Flow {
  readonly length: number | undefined
  private readonly source: BodySource
  private readonly lease: Lease
  private readonly whenWhole: 'success' | 'failure'
  private readonly request: ProxyRequest
  private sink: BodySink | undefined
  private flow: Flow | undefined

  constructor(source: BodySource, lease: Lease, whenWhole: 'success' | 'failure', request: ProxyRequest) {
    this.length = source.length
    this.source = source
    this.lease = lease
    this.whenWhole = whenWhole
    this.request = request
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    try {
      this.flow = this.source.start(this)
    } catch (error) {
      this.lease.release('aborted')
      throw error
    }
    return this
  }

  /** The header came in good order and nobody wanted the rest. */
  discard(): void {
    this.lease.release(this.whenWhole)
    this.source.discard()
  }

  data(chunk: Uint8Array): boolean {
    return (this.sink as BodySink).data(chunk)
  }

  end(trailers?: HeaderMap): void {
    this.lease.release(this.whenWhole)
    ;(this.sink as BodySink).end(trailers)
  }

  error(error: ProxyError): void {
    this.lease.release(this.whenWhole === 'failure' ? 'failure' : outcomeOf(error, this.request))
    ;(this.sink as BodySink).error(error)
  }

  resume(): void {
    this.flow?.resume()
  }

  abort(): void {
    this.lease.release(this.whenWhole === 'failure' ? 'failure' : 'aborted')
    this.flow?.abort()
  }
}
