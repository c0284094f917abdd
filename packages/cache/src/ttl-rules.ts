import { combined, type HeaderMap } from '@proxy/pipeline'

/** A lifetime set by configuration for responses of some status and content type. The first rule that fits wins. */
export interface TtlRule {
  /** Statuses it is for: `200`, `'2xx'`, or several. Default: 200, 203, 300, 301, 308 (responses that are content). */
  readonly status?: StatusPattern | readonly StatusPattern[]
  /** Content types it is for: `image/*`, `application/json`, `*\/*+json`. Default: all, also none. */
  readonly contentType?: string | readonly string[]
  /** Takes the place of max-age, s-maxage and Expires; counted from when the response arrived, whatever its Age. no-store, no-cache, private and Set-Cookie still hold. Milliseconds. */
  readonly ttlMs: number
}
export type StatusPattern = number | `${1 | 2 | 3 | 4 | 5}xx` | `${number}`

const contentStatuses: readonly StatusPattern[] = [200, 203, 300, 301, 308]

/** Whether `rule` is for a response with this status and these fields. */
export function ruleFits(rule: TtlRule, status: number, headers: Readonly<HeaderMap>): boolean {
  const statuses = rule.status ?? contentStatuses
  if (!(typeof statuses === 'object' ? statuses.some((pattern) => statusFits(pattern, status)) : statusFits(statuses, status))) return false
  return rule.contentType === undefined || isOfType(headers, rule.contentType)
}

/** Whether Content-Type names one of these types: `image/*`, `application/json`, `*\/*+json`. */
export function isOfType(headers: Readonly<HeaderMap>, ranges: string | readonly string[]): boolean {
  const type = combined(headers['content-type'])?.split(';', 1)[0]?.trim().toLowerCase()
  if (type === undefined) return false
  return typeof ranges === 'object' ? ranges.some((range) => typeFits(range, type)) : typeFits(ranges, type)
}

/** `404` or `5xx`. */
function statusFits(pattern: StatusPattern, status: number): boolean {
  const text = String(pattern)
  return text.endsWith('xx') ? Math.floor(status / 100) === Number(text[0]) : Number(text) === status
}

/** `image/*`, `application/json`, `*\/*+json`. */
function typeFits(pattern: string, type: string): boolean {
  const [wantMain = '', wantSub = ''] = pattern.toLowerCase().split('/')
  const [main = '', sub = ''] = type.split('/')
  if (wantMain !== '*' && wantMain !== main) return false
  if (wantSub === '*') return true
  return wantSub.startsWith('*+') ? sub.endsWith(wantSub.slice(1)) : wantSub === sub
}
