import { combined } from '@proxy/pipeline'

/** Directives of Cache-Control (RFC 9111 section 5.2), of a request or a response. Times in seconds. */
export interface CacheControl {
  readonly maxAge: number | undefined
  readonly sMaxage: number | undefined
  readonly minFresh: number | undefined
  readonly noStore: boolean
  /** With field names too: such fields would have to be revalidated, so the whole response is. */
  readonly noCache: boolean
  /** With field names too: such fields may not be stored, so nothing is. */
  readonly private: boolean
  readonly public: boolean
  readonly mustRevalidate: boolean
  readonly proxyRevalidate: boolean
  readonly onlyIfCached: boolean
}

/** Largest delta-seconds kept: RFC 9111 section 1.2.2 asks for 2^31 at least when a value overflows. */
const MAX_SECONDS = 2 ** 31

/** token [ "=" ( token / quoted-string ) ], with what stands around it. Sticky, linear. */
const directive = /[\s,]*([!#$%&'*+.^_`|~0-9a-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?\s*(?=,|$)/iy

/**
 * Parses the field. A malformed or repeated max-age counts as 0, so that in doubt a response is stale (RFC 9111 section 4.2.1). What cannot be
 * parsed at all makes the result as strict as no-store: it may have been meant to be.
 */
export function parseCacheControl(value: string | string[] | undefined): CacheControl | undefined {
  const text = combined(value)
  if (text === undefined) return undefined
  const found = new Map<string, string | undefined>()
  const repeated = new Set<string>()
  let unreadable = false
  directive.lastIndex = 0
  while (directive.lastIndex < text.length) {
    const at = directive.lastIndex
    const match = directive.exec(text)
    if (match === null) {
      unreadable = /[^\s,]/.test(text.slice(at))
      break
    }
    const name = (match[1] as string).toLowerCase()
    const argument = match[2] ?? match[3]
    if (found.has(name) && found.get(name) !== argument) repeated.add(name)
    else found.set(name, argument)
  }
  const seconds = (name: string): number | undefined => (found.has(name) ? (repeated.has(name) ? 0 : deltaSeconds(found.get(name))) : undefined)
  return {
    maxAge: seconds('max-age'),
    sMaxage: seconds('s-maxage'),
    minFresh: seconds('min-fresh'),
    noStore: unreadable || found.has('no-store'),
    noCache: found.has('no-cache'),
    private: found.has('private'),
    public: found.has('public'),
    mustRevalidate: found.has('must-revalidate'),
    proxyRevalidate: found.has('proxy-revalidate'),
    onlyIfCached: found.has('only-if-cached')
  }
}

/** delta-seconds (RFC 9111 section 1.2.2); anything else is 0. */
function deltaSeconds(text: string | undefined): number {
  if (text === undefined || !/^\d+$/.test(text)) return 0
  return Math.min(Number(text), MAX_SECONDS)
}

/** Age in seconds; a value that is not one is ignored (RFC 9111 section 5.1), of several the first counts. */
export function parseAge(value: string | string[] | undefined): number {
  const text = (typeof value === 'object' ? value[0] : value)?.split(',', 1)[0]?.trim()
  return text !== undefined && /^\d+$/.test(text) ? Math.min(Number(text), MAX_SECONDS) : 0
}

const imfDate = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT$/
const rfc850Date = /^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\d{2})-(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-(\d{2}) (\d{2}):(\d{2}):(\d{2}) GMT$/
const asctimeDate = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([ \d]\d) (\d{2}):(\d{2}):(\d{2}) (\d{4})$/
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** HTTP-date in its three forms (RFC 9110 section 5.6.7), milliseconds since 1970; undefined for anything else. */
export function parseHttpDate(value: string | string[] | undefined): number | undefined {
  if (typeof value !== 'string') return undefined
  let match = imfDate.exec(value)
  if (match !== null) return utc(match[3], match[2], match[1], match[4], match[5], match[6])
  match = rfc850Date.exec(value)
  if (match !== null) {
    // A year that looks more than 50 years ahead is in the past.
    const year = 2000 + Number(match[3])
    return utc(String(year > new Date().getUTCFullYear() + 50 ? year - 100 : year), match[2], match[1], match[4], match[5], match[6])
  }
  match = asctimeDate.exec(value)
  return match === null ? undefined : utc(match[6], match[1], match[2], match[3], match[4], match[5])
}

function utc(year?: string, month?: string, day?: string, hour?: string, minute?: string, second?: string): number | undefined {
  const [d, h, m, s] = [Number(day), Number(hour), Number(minute), Number(second)]
  if (d < 1 || d > 31 || h > 23 || m > 59 || s > 60) return undefined
  return Date.UTC(Number(year), months.indexOf(month as string), d, h, m, s)
}
