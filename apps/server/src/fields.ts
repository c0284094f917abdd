import { cacheResult, createHeaders, derive, errorResponse, type HeaderMap, type Middleware, ProxyError, type ProxyResponse } from '@proxy/pipeline'

/** Fields to set (lower-case name -> value) and to remove. */
export interface FieldChanges {
  readonly set: Readonly<Record<string, string>>
  readonly remove: readonly string[]
}

export function isEmptyChange({ set, remove }: FieldChanges): boolean {
  return remove.length === 0 && Object.keys(set).length === 0
}

function apply(headers: HeaderMap, { set, remove }: FieldChanges): HeaderMap {
  for (const name of remove) headers[name] = undefined
  for (const name in set) headers[name] = set[name]
  return headers
}

/** Changes the fields of requests on their way in. */
export function changeRequest(changes: FieldChanges): Middleware {
  return (next) => (request) => next(derive(request, { headers: apply(createHeaders(request.headers), changes) }))
}

export interface ResponseChanges extends FieldChanges {
  /** `set` is for answers below 400: what says how long an image may be kept must not be said of an error. This is for all. */
  readonly always: Readonly<Record<string, string>>
}

/** Changes the fields of answers on their way out, whether they come from the cache or the pool. */
export function changeResponse({ set, always, remove }: ResponseChanges): Middleware {
  const onSuccess: FieldChanges = { set: { ...set, ...always }, remove }
  const onError: FieldChanges = { set: always, remove }
  return (next) => {
    const change = (response: ProxyResponse): ProxyResponse => {
      apply(response.headers, response.status < 400 ? onSuccess : onError)
      return response
    }
    return (request) => next(request).then(change)
  }
}

const cacheWords: Readonly<Record<string, string>> = { 'negative-hit': 'NEGATIVE' }

/** Says in a field what the cache did: HIT, MISS, NEGATIVE, REVALIDATED, STALE, COLLAPSED or BYPASS. */
export function showCacheResult(name: string): Middleware {
  return (next) => (request) =>
    next(request).then((response) => {
      const result = request.exchange.get(cacheResult)
      if (result !== undefined) response.headers[name] = cacheWords[result] ?? result.toUpperCase()
      return response
    })
}

/** Cuts the query off: it is neither forwarded nor part of the cache key. */
export const dropQuery: Middleware = (next) => (request) => {
  const end = request.target.indexOf('?')
  return next(end === -1 ? request : derive(request, { target: request.target.slice(0, end) }))
}

/** Answers methods that are not among `methods` with 405. */
export function allowMethods(methods: readonly string[]): Middleware {
  const allowed = new Set(methods)
  const allow = methods.join(', ')
  const failure = new ProxyError('the method is not allowed on this route', { code: 'METHOD_NOT_ALLOWED', status: 405, source: 'client' })
  return (next) => (request) => {
    if (allowed.has(request.method)) return next(request)
    const response = errorResponse(failure)
    // RFC 9110 section 15.5.6
    response.headers.allow = allow
    return Promise.resolve(response)
  }
}
