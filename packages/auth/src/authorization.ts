import { type HeaderMap, single } from '@proxy/pipeline'
import { MAX_CREDENTIAL_LENGTH } from './constant-time.ts'
import type { SecretSyntax } from './tokens.ts'

const SPACE = 0x20

/** https://www.rfc-editor.org/rfc/rfc9110.html#section-11.2, the same as `b64token` of RFC 6750 section 2.1. */
export const token68: SecretSyntax = { pattern: /^[A-Za-z0-9\-._~+/]+=*$/, description: 'token68: letters, digits and -._~+/ with = only at the end (RFC 9110 section 11.2)' }

/**
 * The token68 that Authorization carries for `scheme` (lower-case letters), or undefined: when the field is absent or repeated, of another scheme, malformed,
 * or longer than `MAX_CREDENTIAL_LENGTH`. Scheme names are case-insensitive, followed by one or more spaces (RFC 9110 section 11.4).
 */
export function authorizationToken(headers: HeaderMap, scheme: string): string | undefined {
  const value = single(headers.authorization)
  if (value === undefined || !hasScheme(value, scheme)) return undefined
  let start = scheme.length + 1
  while (value.charCodeAt(start) === SPACE) start++
  const length = value.length - start
  if (length <= 0 || length > MAX_CREDENTIAL_LENGTH) return undefined
  const token = value.slice(start)
  return token68.pattern.test(token) ? token : undefined
}

/** Whether any Authorization line is meant for `scheme`, well formed or not. */
export function authorizationNames(headers: HeaderMap, scheme: string): boolean {
  const value = headers.authorization
  if (value === undefined) return false
  return typeof value === 'string' ? hasScheme(value, scheme) : value.some((line) => hasScheme(line, scheme))
}

function hasScheme(value: string, scheme: string): boolean {
  const { length } = scheme
  if (value.length > length ? value.charCodeAt(length) !== SPACE : value.length < length) return false
  // Bit 0x20 is the case of an ASCII letter, and `scheme` holds nothing else.
  for (let i = 0; i < length; i++) if ((value.charCodeAt(i) | 0x20) !== scheme.charCodeAt(i)) return false
  return true
}
