import { combined, createHeaders } from './headers.ts'
import type { HeaderMap } from './types.ts'

/**
 * Fields that mean this connection only and are never forwarded, in either direction.
 * https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1 ; Expect is answered here, not passed on; Host is `authority`.
 */
const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'expect'
])

/** Bit n is set when one of them has n characters: most other names need no more than that. */
const lengths = [...hopByHop].reduce((bits, { length }) => bits | (1 << length), 0)

export function isHopByHop(lowerCaseName: string): boolean {
  const { length } = lowerCaseName
  return length < 32 && (lengths & (1 << length)) !== 0 && hopByHop.has(lowerCaseName)
}

/** Fields that may not be removed by naming them in Connection: that is an attack on the proxy's own fields (CVE-2026-33805), not a hop's wish. */
const protectedFields: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'authorization',
  'cookie',
  'cache-control',
  'via',
  'forwarded',
  'x-real-ip',
  'age',
  'date',
  'etag',
  'content-type',
  'content-encoding',
  'content-range',
  'set-cookie',
  'vary',
  'expires'
])

/** Names that this message's Connection field declares to be for one hop only. */
export function connectionOptions(connection: string | string[] | undefined): ReadonlySet<string> | undefined {
  const text = combined(connection)
  if (text === undefined || text === 'keep-alive' || text === 'close' || text === 'Keep-Alive') return undefined
  const names = new Set<string>()
  for (const part of text.toLowerCase().split(',')) {
    const name = part.trim()
    if (name !== '' && name !== 'close' && name !== 'keep-alive' && !protectedFields.has(name) && !name.startsWith('x-forwarded-')) names.add(name)
  }
  return names.size === 0 ? undefined : names
}

/** A copy without the fields of one hop: the fixed ones and those that Connection names. */
export function stripHopByHop(headers: Readonly<HeaderMap>): HeaderMap {
  const listed = connectionOptions(headers.connection)
  const kept = createHeaders()
  for (const name in headers) {
    if (isHopByHop(name) || listed?.has(name)) continue
    kept[name] = headers[name]
  }
  return kept
}
