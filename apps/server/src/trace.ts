import { randomBytes } from 'node:crypto'
import { createExchangeKey, type ExchangeKey, errorResponse, type Middleware, type ProxyError, type ProxyResponse, single, TrustedProxies, toProxyError } from '@proxy/pipeline'

/** Monotonic milliseconds at which the request came in. */
export const startedMs: ExchangeKey<number> = createExchangeKey('startedMs')
/** What the answer was made from where the pipeline failed. */
export const failure: ExchangeKey<ProxyError> = createExchangeKey('failure')

export interface TraceOptions {
  /** Peers whose X-Request-Id is kept: addresses or CIDR blocks. Default: none. */
  readonly trustedProxies?: readonly string[]
}

/** Ids that others gave: short, and harmless in a log line and a field. */
const acceptable = /^[\w.:-]{1,128}$/

/**
 * The outermost layer: gives every exchange an id and a start time, and turns failures into answers, so that these carry the id too.
 * An id is 64 random bits of this process and a counter: unique, and far cheaper than a random UUID per request.
 */
export function trace(options: TraceOptions = {}): Middleware {
  const trusted = new TrustedProxies(options.trustedProxies)
  const process = randomBytes(8).toString('hex')
  let count = 0
  return (next) => (request) => {
    const { exchange } = request
    const given = request.headers['x-request-id']
    const id = given !== undefined && trusted.trusts(request.peerAddress) ? single(given) : undefined
    exchange.requestId = id !== undefined && acceptable.test(id) ? id : `${process}-${(count++).toString(36)}`
    exchange.set(startedMs, performance.now())
    const identify = (response: ProxyResponse): ProxyResponse => {
      response.headers['x-request-id'] = exchange.requestId
      return response
    }
    return next(request).then(identify, (error: unknown) => {
      const cause = toProxyError(error)
      exchange.set(failure, cause)
      return identify(errorResponse(cause))
    })
  }
}
