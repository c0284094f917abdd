import { ProxyError } from './errors.ts'
import type { HeaderMap } from './types.ts'

/** An answer whose head cannot be sent as it is. */
export function badHead(what: string, cause?: unknown): ProxyError {
  return new ProxyError(what, { code: 'UPSTREAM_BAD_HEADERS', status: 502, source: 'upstream', proxyStatus: 'http_protocol_error', cause })
}

/** A body of another length than its head says: sent on, it would swallow the next answer of the connection or be taken for one. */
export function badLength(received: number, promised: number): ProxyError {
  return new ProxyError(`the body has ${received} bytes, Content-Length says ${promised}`, { code: 'BODY_LENGTH_MISMATCH', status: 502, source: 'upstream', proxyStatus: 'http_response_incomplete' })
}

/** What Content-Length promises, in bytes; undefined when it is absent. Throws `badHead` when it is no number. */
export function promisedLength(headers: HeaderMap): number | undefined {
  const text = headers['content-length']
  if (text === undefined) return undefined
  const length = typeof text === 'object' ? undefined : digits(text)
  if (length === undefined) throw badHead('Content-Length is no number')
  return length
}

/** 1*DIGIT; undefined for anything else. */
function digits(text: string): number | undefined {
  let value = 0
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48
    if (digit < 0 || digit > 9) return undefined
    value = value * 10 + digit
  }
  return text.length > 0 ? value : undefined
}

const fieldName = /^[!#$%&'*+.^_`|~0-9a-z-]+$/i
const notInFieldValue = /[^\t\x20-\x7e\x80-\xff]/

/** Throws `badHead` for a line that cannot be sent (RFC 9110 section 5). node:http looks at its own lines; its HTTP/2 and some hosts' `Response` do not. */
export function checkLine(name: string, line: string): void {
  if (!fieldName.test(name)) throw badHead(`"${name}" is no field name`)
  if (notInFieldValue.test(line)) throw badHead(`the value of ${name} cannot be sent`)
}
