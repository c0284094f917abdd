import { cacheResult, type ProxyError, type ProxyRequest, upstreamAttempts, upstreamName, upstreamResult } from '@proxy/pipeline'
import type { Logger } from 'pino'
import { describeError } from './logger.ts'
import { pathOf } from './target-path.ts'
import { failure, startedMs } from './trace.ts'

export type LogRequest = (request: ProxyRequest | undefined, status: number, outcome: string, error: ProxyError | undefined) => void

/**
 * One line per request. It names the path alone: a query and header fields may hold credentials, so neither is ever written.
 * `request` is undefined for messages that were refused before they became one.
 */
export function accessLog(logger: Logger, mask: (text: string) => string): LogRequest {
  return (request, status, outcome, error) => {
    const exchange = request?.exchange
    const cause = error ?? exchange?.get(failure)
    const since = exchange?.get(startedMs)
    logger.info(
      {
        // A CONNECT has none: no answer of the pipeline carries it.
        requestId: exchange?.requestId === '' ? undefined : exchange?.requestId,
        client: request?.remoteAddress,
        method: request?.method,
        host: request?.authority,
        path: request === undefined ? undefined : pathOf(request.target),
        status,
        durationMs: since === undefined ? undefined : Math.round((performance.now() - since) * 1000) / 1000,
        cache: exchange?.get(cacheResult),
        upstream: exchange?.get(upstreamName),
        upstreamResult: exchange?.get(upstreamResult),
        attempts: exchange?.get(upstreamAttempts),
        outcome: outcome === 'complete' ? undefined : outcome,
        error: cause === undefined ? undefined : describeError(cause, mask)
      },
      'request'
    )
  }
}
