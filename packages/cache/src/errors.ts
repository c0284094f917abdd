import { ProxyError, toProxyError } from '@proxy/pipeline'

/** The request wants no answer but a stored one, and there is none (RFC 9111 section 5.2.1.7). */
export function onlyIfCached(): ProxyError {
  return new ProxyError('only-if-cached, and nothing usable is stored', { code: 'CACHE_ONLY_IF_CACHED', status: 504, source: 'client' })
}

/** The origin's body is not as long as it declared. */
export function wrongLength(what: string): ProxyError {
  return new ProxyError(`the origin sent ${what}`, { code: 'BODY_BROKEN', status: 502, source: 'upstream', proxyStatus: 'http_response_incomplete' })
}

/** What a client waited for turned out to be a failure of the origin that was not meant for it, twice. `status` is the origin's. */
export function originFailed(status: number): ProxyError {
  return new ProxyError(`the origin answered ${status} to the request that was waited for`, {
    code: 'CACHE_ORIGIN_FAILED',
    status,
    source: 'upstream',
    retryable: true,
    proxyStatus: 'http_response_incomplete'
  })
}

/** A reader needs bytes that are neither in the window nor in the store. */
export function readerLost(): ProxyError {
  return new ProxyError('a slow reader fell behind a response that is not kept', { code: 'CACHE_READER_LOST', status: 502, source: 'proxy' })
}

/** Nobody is left to hear of it. */
export function fillAbandoned(): ProxyError {
  return new ProxyError('every reader of the fill has left', { code: 'CACHE_FILL_ABANDONED', status: 499, source: 'client' })
}

/** For `onStoreError`: the write has been given up. */
export function storeStalled(stallMs: number): ProxyError {
  return new ProxyError(`the store took no more for ${stallMs} ms`, { code: 'STORE_STALLED', status: 504, source: 'proxy' })
}

/** A write was being read when it was given up. */
export function writeAborted(): ProxyError {
  return new ProxyError('the write that was being read was given up', { code: 'STORE_WRITE_ABORTED', status: 502, source: 'proxy' })
}

/** What lies in a store is not what was written. */
export function storedBodyBroken(what: string): ProxyError {
  return new ProxyError(`stored body: ${what}`, { code: 'STORE_BODY_BROKEN', status: 502, source: 'proxy' })
}

/** A tier did not answer in time. */
export function tierTimedOut(tier: string, timeoutMs: number): ProxyError {
  return new ProxyError(`tier ${tier} did not answer within ${timeoutMs} ms`, { code: 'TIER_TIMEOUT', status: 504, source: 'proxy' })
}

/** A tier has failed too often, or does not keep up, and is not asked for a while. */
export function tierOut(tier: string): ProxyError {
  return new ProxyError(`tier ${tier} is left out for a while`, { code: 'TIER_UNAVAILABLE', status: 503, source: 'proxy' })
}

/** No answer was to be had: from the origin, or for want of one that could be asked. */
export function isUnreachable(error: unknown): boolean {
  const { source, status } = toProxyError(error)
  return source !== 'client' && status >= 502 && status <= 504
}
