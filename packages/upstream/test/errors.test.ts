import { ProxyError } from '@proxy/pipeline'
import { errors } from 'undici'
import { expect, test } from 'vitest'
import { errorCode, isConnectionLoss, type Stage, upstreamError } from '../src/errors.ts'

const coded = (code: string, message = 'it failed'): Error => Object.assign(new Error(message), { code })
const summary = (error: Error, stage: Stage): unknown[] => {
  const { status, code, proxyStatus, retryable, source } = upstreamError(error, 'http://o', stage)
  return [status, code, proxyStatus, retryable, source]
}

test.each([
  [coded('ECONNREFUSED'), 'queued', [502, 'UPSTREAM_CONNECT_REFUSED', 'connection_refused', true, 'upstream']],
  [coded('ENOTFOUND'), 'queued', [502, 'UPSTREAM_DNS', 'dns_error', true, 'upstream']],
  [coded('EAI_AGAIN'), 'queued', [502, 'UPSTREAM_DNS', 'dns_error', true, 'upstream']],
  [coded('EAI_FAIL'), 'queued', [502, 'UPSTREAM_DNS', 'dns_error', true, 'upstream']],
  [coded('EHOSTUNREACH'), 'queued', [502, 'UPSTREAM_UNREACHABLE', 'destination_ip_unroutable', true, 'upstream']],
  [coded('ENETUNREACH'), 'queued', [502, 'UPSTREAM_UNREACHABLE', 'destination_ip_unroutable', true, 'upstream']],
  [coded('ETIMEDOUT'), 'queued', [504, 'UPSTREAM_CONNECT_TIMEOUT', 'connection_timeout', true, 'upstream']],
  [new errors.ConnectTimeoutError('late'), 'queued', [504, 'UPSTREAM_CONNECT_TIMEOUT', 'connection_timeout', true, 'upstream']],
  // The kernel gave up on a connection that stood.
  [coded('ETIMEDOUT'), 'sent', [502, 'UPSTREAM_CONNECTION_LOST', 'connection_terminated', false, 'upstream']],
  [coded('ETIMEDOUT'), 'answered', [502, 'UPSTREAM_INCOMPLETE', 'http_response_incomplete', false, 'upstream']],
  [coded('ECONNRESET'), 'queued', [502, 'UPSTREAM_CONNECTION_LOST', 'connection_terminated', true, 'upstream']],
  [coded('EPIPE'), 'sent', [502, 'UPSTREAM_CONNECTION_LOST', 'connection_terminated', false, 'upstream']],
  [new errors.SocketError('other side closed'), 'sent', [502, 'UPSTREAM_CONNECTION_LOST', 'connection_terminated', false, 'upstream']],
  [new errors.SocketError('other side closed'), 'answered', [502, 'UPSTREAM_INCOMPLETE', 'http_response_incomplete', false, 'upstream']],
  [new errors.SocketError('bad response'), 'sent', [502, 'UPSTREAM_PROTOCOL', 'http_protocol_error', false, 'upstream']],
  [new errors.HTTPParserError('no HTTP'), 'sent', [502, 'UPSTREAM_PROTOCOL', 'http_protocol_error', false, 'upstream']],
  [new errors.HTTPParserError('Invalid EOF state'), 'answered', [502, 'UPSTREAM_INCOMPLETE', 'http_response_incomplete', false, 'upstream']],
  [new errors.HeadersOverflowError(), 'sent', [502, 'UPSTREAM_HEADERS_TOO_LARGE', 'http_response_header_section_size', false, 'upstream']],
  [new errors.ResponseContentLengthMismatchError(), 'answered', [502, 'UPSTREAM_INCOMPLETE', 'http_response_incomplete', false, 'upstream']],
  [coded('CERT_HAS_EXPIRED'), 'queued', [502, 'UPSTREAM_TLS', 'tls_certificate_error', true, 'upstream']],
  [coded('ERR_TLS_CERT_ALTNAME_INVALID'), 'queued', [502, 'UPSTREAM_TLS', 'tls_certificate_error', true, 'upstream']],
  [coded('UNABLE_TO_VERIFY_LEAF_SIGNATURE'), 'queued', [502, 'UPSTREAM_TLS', 'tls_certificate_error', true, 'upstream']],
  [coded('INVALID_CA'), 'queued', [502, 'UPSTREAM_TLS', 'tls_certificate_error', true, 'upstream']],
  [coded('ERR_SSL_WRONG_VERSION_NUMBER'), 'queued', [502, 'UPSTREAM_TLS', 'tls_protocol_error', true, 'upstream']],
  [coded('EWHATEVER'), 'queued', [502, 'UPSTREAM_FAILED', 'destination_unavailable', true, 'upstream']],
  [new Error('without a code'), 'sent', [502, 'UPSTREAM_FAILED', 'destination_unavailable', false, 'upstream']],
  [new errors.ClientDestroyedError(), 'queued', [503, 'UPSTREAM_CLOSED', 'destination_unavailable', false, 'proxy']],
  [new errors.InvalidArgumentError('invalid header'), 'queued', [500, 'UPSTREAM_REQUEST_INVALID', 'proxy_internal_error', false, 'proxy']]
] as [Error, Stage, unknown[]][])('%s, %s', (error, stage, expected) => {
  expect(summary(error, stage)).toEqual(expected)
  expect(upstreamError(error, 'http://o', stage)).toBeInstanceOf(ProxyError)
})

test('of several addresses, the code is that of the whole, else of the last one tried', () => {
  // node:net gives an AggregateError the code of its first error; undici's connector makes one with ETIMEDOUT among them a timeout.
  expect(errorCode(Object.assign(new AggregateError([coded('ENETUNREACH'), coded('ECONNREFUSED')]), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED')
  expect(errorCode(new AggregateError([coded('ENETUNREACH'), coded('ECONNREFUSED')]))).toBe('ECONNREFUSED')
  expect(errorCode(new AggregateError([]))).toBe('')
  expect(errorCode(new Error('x', { cause: coded('EPIPE') }))).toBe('EPIPE')
  expect(upstreamError(new AggregateError([coded('ECONNREFUSED')]), 'http://o', 'queued').message).toBe('http://o: ECONNREFUSED')
})

test('what is a lost connection', () => {
  expect([coded('ECONNRESET'), coded('EPIPE'), new errors.SocketError('other side closed')].map(isConnectionLoss)).toEqual([true, true, true])
  expect([coded('ECONNREFUSED'), coded('ETIMEDOUT'), new errors.HTTPParserError('x'), new Error('x')].map(isConnectionLoss)).toEqual([false, false, false, false])
})

test('what the origin sent is not kept on the error, where a log would find it', () => {
  const error = Object.assign(new errors.HTTPParserError('no HTTP'), { data: 'secret' })
  expect(JSON.stringify(upstreamError(error, 'http://o', 'sent').cause)).not.toContain('secret')
})
