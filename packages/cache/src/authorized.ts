import { type ProxyRequest, principal } from '@proxy/pipeline'

/** RFC 9111 section 3.5, and the same for a request that was authenticated by a layer before the cache. */
export function isAuthorized(request: ProxyRequest): boolean {
  return request.headers.authorization !== undefined || request.context.get(principal) !== undefined
}
