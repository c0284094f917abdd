import { cacheResult, type Handler, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { addCacheStatus, type ForwardReason, forwardedStatus } from './cache-status.ts'

/** Hands a request to the origin as it is, and its answer back: nothing is stored of it, and nobody shares it. `cache` is the name in Cache-Status. */
export async function pass(cache: string, request: ProxyRequest, next: Handler, fwd: ForwardReason, detail?: string): Promise<ProxyResponse> {
  request.exchange.set(cacheResult, fwd === 'bypass' || fwd === 'method' ? 'bypass' : 'miss')
  const response = await next(request)
  addCacheStatus(response.headers, forwardedStatus(cache, detail === undefined ? { fwd } : { fwd, detail }))
  return response
}
