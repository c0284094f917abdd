import { appendHeader, createHeaders, type Middleware, type ProxyRequest, type ProxyResponse, single, WholeBody } from '@proxy/pipeline'
import { limitField, policyField, seconds } from './fields.ts'
import { byClientAddress, type KeyFunction } from './keys.ts'
import type { Decision, Limiter, MemoryLimiter, Policy } from './limiter.ts'

export interface RateLimitOptions {
  readonly limiter: Limiter | MemoryLimiter
  /** Default `byClientAddress()`. */
  readonly key?: KeyFunction
  /** What a request costs. Default 1. More than the limit's size is never allowed. */
  readonly cost?: (request: ProxyRequest) => number
  /**
   * Which fields tell a client about its limit. `draft` (default): RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11; `x`: X-RateLimit-Limit, -Remaining
   * and -Reset (seconds from now); `none`. Retry-After is sent with every 429.
   */
  readonly headers?: 'draft' | 'x' | 'none'
  /** Whether allowed answers carry these fields too. Default false: the layer then hands on the promise of the next one, without looking at the answer. */
  readonly onAllowed?: boolean
  /** Told of each denied request, before it is answered, for counting. The decision may be overwritten afterwards. */
  readonly onLimited?: (request: ProxyRequest, decision: Decision) => void
}

type SetFields = (response: ProxyResponse, fields: readonly [string, string, string]) => void

/** Answers 429 (RFC 6585 section 4) when the limiter denies what a request costs; else the request goes on. Several limits: several of these, one in the other. */
export function rateLimit(options: RateLimitOptions): Middleware {
  const { limiter, key = byClientAddress(), cost, headers = 'draft', onAllowed = false, onLimited } = options
  const now = 'takeNow' in limiter ? limiter : undefined
  const describe = headers === 'draft' ? draftFields() : xFields
  const setFields: SetFields | undefined = headers === 'none' ? undefined : headers === 'draft' ? addDraftFields : setXFields
  const touchAllowed = onAllowed && setFields !== undefined

  return (next) => {
    const limited = (request: ProxyRequest, decision: Decision): ProxyResponse => {
      onLimited?.(request, decision)
      const response = tooManyRequests(decision)
      setFields?.(response, describe(decision))
      return response
    }
    const allowed = (request: ProxyRequest, decision: Decision): Promise<ProxyResponse> => {
      if (!touchAllowed) return next(request)
      // Written down before the answer is awaited: by then the decision is about another request.
      const fields = describe(decision)
      return next(request).then((response) => {
        setFields?.(response, fields)
        return response
      })
    }
    return (request) => {
      try {
        const who = key(request)
        if (who === undefined) return next(request)
        const price = cost === undefined ? 1 : cost(request)
        if (now === undefined) return limiter.take(who, price).then((decision) => (decision.allowed ? allowed(request, decision) : limited(request, decision)))
        const decision = now.takeNow(who, price)
        return decision.allowed ? allowed(request, decision) : Promise.resolve(limited(request, decision))
      } catch (error) {
        // A handler rejects, it does not throw: functions of the user are called above.
        return Promise.reject(error)
      }
    }
  }
}

const phrase = new WholeBody('Too Many Requests\n')

/** No error is made for it: a stack costs more than everything else here, and this is the answer to a flood. */
function tooManyRequests({ retryAfterMs }: Decision): ProxyResponse {
  const headers = createHeaders()
  headers['content-type'] = 'text/plain; charset=utf-8'
  headers['content-length'] = '18'
  headers['cache-control'] = 'no-store'
  if (Number.isFinite(retryAfterMs)) headers['retry-after'] = String(seconds(retryAfterMs))
  return { status: 429, headers, body: phrase }
}

/** RateLimit-Policy is made once per policy, which a limiter has one of. */
function draftFields(): (decision: Decision) => [string, string, string] {
  let known: Policy | undefined
  let field = ''
  return (decision) => {
    if (decision.policy !== known) {
      known = decision.policy
      field = policyField(known)
    }
    return [field, limitField(decision), '']
  }
}

/** Adds lines: both fields are lists, and what an origin or an inner limit says about its own policies stays (draft section 7.2). */
const addDraftFields: SetFields = ({ headers }, [policy, limit]) => {
  appendHeader(headers, 'ratelimit-policy', policy)
  appendHeader(headers, 'ratelimit', limit)
}

function xFields({ limit, remaining, resetAfterMs }: Decision): [string, string, string] {
  return [String(Math.floor(limit)), String(remaining), String(Math.ceil(resetAfterMs / 1000))]
}

/** These fields are no lists: of several limits the one that has least left is told. */
const setXFields: SetFields = ({ headers }, [limit, remaining, reset]) => {
  const present = single(headers['x-ratelimit-remaining'])
  if (present !== undefined && Number(present) < Number(remaining)) return
  headers['x-ratelimit-limit'] = limit
  headers['x-ratelimit-remaining'] = remaining
  headers['x-ratelimit-reset'] = reset
}
