import { type Middleware, type ProxyRequest, target, toProxyError, upstreamAttempts, upstreamName, WholeBody, withContext } from '@proxy/pipeline'
import type { Balancer } from './balancer.ts'
import { noTarget, unavailable } from './errors.ts'
import { leaseUntilEnd, outcomeOf } from './leased-body.ts'
import type { TargetState } from './target.ts'

export interface BalanceOptions {
  readonly balancer: Balancer
  /**
   * How many more targets, each a different one, are tried when one could not be reached: it failed with a `ProxyError` that is `retryable`, so nothing of
   * the request was processed. Only requests without a body or with one in memory are sent again. Default 1.
   */
  readonly retries?: number
  /** Statuses of answers that count as failures of the target for its health; the answer is passed on all the same. Default none: an answer is a sign of life. */
  readonly failureStatuses?: readonly number[]
  /** Status, 500 to 599, when no target that was tried could be reached. Default: the status of the last one's error (502, or 504 for a timeout). */
  readonly unavailableStatus?: number
}

/**
 * Gives each request a target (context key `target`, for `upstream()`) and tries others when it cannot be reached. The target stays leased until the body of
 * its answer has ended, failed or been discarded. Writes `upstreamName` and `upstreamAttempts` to the exchange.
 *
 * Throws `ProxyError` `BALANCER_NO_TARGET` (503), `BALANCER_UNAVAILABLE` where `unavailableStatus` is set, otherwise what the last attempt threw.
 * The factory throws RangeError for options that cannot be meant.
 */
export function balance(options: BalanceOptions): Middleware {
  const { balancer, retries = 1, unavailableStatus } = options
  if (!Number.isInteger(retries) || retries < 0) throw new RangeError('retries must be an integer of at least 0')
  if (unavailableStatus !== undefined && !(Number.isInteger(unavailableStatus) && unavailableStatus >= 500 && unavailableStatus <= 599)) throw new RangeError('unavailableStatus must be 500 to 599')
  const failureStatuses = new Set(options.failureStatuses)

  return (next) =>
    async function balanced(request) {
      const { exchange } = request
      let lease = balancer.pick()
      if (lease === undefined) throw noTarget()
      let tried: Set<TargetState> | undefined
      for (let attempt = 1; ; attempt++) {
        exchange.set(upstreamName, lease.target.name)
        exchange.set(upstreamAttempts, (exchange.get(upstreamAttempts) ?? 0) + 1)
        try {
          const response = await next(withContext(request, request.context.with(target, lease.target)))
          response.body = leaseUntilEnd(response.body, lease, failureStatuses.has(response.status) ? 'failure' : 'success', request)
          return response
        } catch (error) {
          const failure = toProxyError(error)
          const outcome = outcomeOf(failure, request)
          lease.release(outcome)
          if (!failure.retryable || failure.source === 'client' || request.signal.aborted) throw error
          if (attempt <= retries && isResendable(request)) {
            tried ??= new Set()
            tried.add(lease.target)
            lease = balancer.pick({ exclude: tried })
            if (lease !== undefined) continue
          }
          throw unavailableStatus === undefined ? error : unavailable(attempt, unavailableStatus, failure)
        }
      }
    }
}

function isResendable(request: ProxyRequest): boolean {
  const { body } = request
  return body === null || body instanceof Uint8Array || body instanceof WholeBody
}
