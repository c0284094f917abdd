import { type ProxyRequest, principal } from '@proxy/pipeline'
import type { ClientKind } from './uncacheable.ts'

/** RFC 9111 section 3.5, and the same for a request that was authenticated by a layer before the cache. */
export function isAuthorized(request: ProxyRequest): boolean {
  return request.headers.authorization !== undefined || request.context.get(principal) !== undefined
}

/** What a request carries of its client's. */
export function clientKind(request: ProxyRequest): ClientKind {
  if (isAuthorized(request)) return 'authorized'
  return request.headers.cookie === undefined ? 'anonymous' : 'cookie'
}
