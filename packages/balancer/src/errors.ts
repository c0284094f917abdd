import { ProxyError } from '@proxy/pipeline'

/** There is nowhere to send the request: the balancer has no targets. 503. */
export function noTarget(): ProxyError {
  return new ProxyError('the balancer has no target', { code: 'BALANCER_NO_TARGET', status: 503, source: 'proxy', proxyStatus: 'destination_unavailable' })
}

/** No target that was tried could be reached; `last` is what the last one failed with. Used where `unavailableStatus` is set. */
export function unavailable(attempts: number, status: number, last: ProxyError): ProxyError {
  return new ProxyError(`${attempts === 1 ? 'the target' : `${attempts} targets`} could not be reached: ${last.message}`, {
    code: 'BALANCER_UNAVAILABLE',
    status,
    source: last.source,
    retryable: true,
    cause: last,
    ...(last.proxyStatus !== undefined && { proxyStatus: last.proxyStatus }),
    ...(last.retryAfter !== undefined && { retryAfter: last.retryAfter })
  })
}
