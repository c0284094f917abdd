import { combined, type HeaderMap } from '@proxy/pipeline'

/** Directives of Cache-Control (RFC 9111 section 5.2), of a request or a response. Times in seconds. */
export interface CacheControl {
  readonly maxAge: number | undefined
  readonly sMaxage: number | undefined
  readonly minFresh: number | undefined
  /** Infinity without an argument: however stale. */
  readonly maxStale: number | undefined
  /** RFC 5861. */
  readonly staleWhileRevalidate: number | undefined
  readonly staleIfError: number | undefined
  readonly noStore: boolean
  /** Of the whole response: not when it names fields. */
  readonly noCache: boolean
  readonly private: boolean
  /** Fields named by `private="…"` or `no-cache="…"`, lower-case: a shared cache does not store them. Empty as a rule. */
  readonly withheld: readonly string[]
  readonly public: boolean
  readonly mustRevalidate: boolean
  readonly proxyRevalidate: boolean
  readonly mustUnderstand: boolean
  /** Read from a targeted field, for which Expires does not count either (RFC 9213 section 2.2). */
  readonly isTargeted: boolean
  readonly onlyIfCached: boolean
}

/** Largest delta-seconds kept: RFC 9111 section 1.2.2 asks for 2^31 at least when a value overflows. */
const MAX_SECONDS = 2 ** 31

// Pieces of `token [ "=" ( token / quoted-string ) ]`, tried one after the other at a position: one pattern for all of it would take time in the square of the field's length.
const separators = /[ \t,]*/y
const whitespace = /[ \t]*/y
const token = /[!#$%&'*+.^_`|~0-9a-z-]+/iy
const quotedString = /"(?:[^"\\]|\\.)*"/y
const fieldNames = /^[ \t,]*[!#$%&'*+.^_`|~0-9a-z-]+(?:[ \t]*,[ \t,]*[!#$%&'*+.^_`|~0-9a-z-]+)*[ \t,]*$/i

/**
 * Parses the field. A malformed max-age, or one repeated with another value, counts as 0, so that in doubt a response is stale (RFC 9111 section 4.2.1).
 * What cannot be parsed at all makes the result as strict as no-store and no-cache, whatever else is there: it may have been meant to be.
 */
export function parseCacheControl(value: string | string[] | undefined): CacheControl | undefined {
  const text = combined(value)
  if (text === undefined) return undefined
  let control = parsed.get(text) as Directives | undefined
  if (control === undefined) {
    control = new Directives()
    control.read(text)
    if (parsed.size >= MAX_REMEMBERED) parsed.clear()
    if (text.length <= MAX_REMEMBERED_LENGTH) parsed.set(text, control)
  }
  return control
}

/** An origin says few different things: what was parsed is remembered. */
const parsed = new Map<string, CacheControl>()
const MAX_REMEMBERED = 256
const MAX_REMEMBERED_LENGTH = 256

const none: readonly string[] = []

/** Filled by `read` or, directive by directive, by `add`. */
export class Directives implements CacheControl {
  maxAge: number | undefined = undefined
  sMaxage: number | undefined = undefined
  minFresh: number | undefined = undefined
  maxStale: number | undefined = undefined
  staleWhileRevalidate: number | undefined = undefined
  staleIfError: number | undefined = undefined
  noStore = false
  noCache = false
  private = false
  withheld = none
  public = false
  mustRevalidate = false
  proxyRevalidate = false
  mustUnderstand = false
  isTargeted = false
  onlyIfCached = false

  read(text: string): void {
    let at = endOf(separators, text, 0)
    while (at < text.length) {
      const nameEnd = endOf(token, text, at)
      const name = text.slice(at, nameEnd).toLowerCase()
      at = endOf(whitespace, text, nameEnd)
      let argument: string | undefined
      if (text[at] === '=') {
        const start = endOf(whitespace, text, at + 1)
        const quoted = text[start] === '"'
        at = endOf(quoted ? quotedString : token, text, start)
        argument = quoted ? text.slice(start + 1, at - 1) : text.slice(start, at)
        at = endOf(whitespace, text, at)
      }
      if (name === '' || (at < text.length && text[at] !== ',')) {
        this.noStore = this.noCache = true
        // It would take the place of no-store.
        this.mustUnderstand = false
        return
      }
      this.add(name, argument)
      at = endOf(separators, text, at)
    }
  }

  add(name: string, argument: string | undefined): void {
    switch (name) {
      case 'max-age':
        this.maxAge = agreed(this.maxAge, argument)
        break
      case 's-maxage':
        this.sMaxage = agreed(this.sMaxage, argument)
        break
      case 'min-fresh':
        this.minFresh = agreed(this.minFresh, argument)
        break
      case 'max-stale':
        this.maxStale = same(this.maxStale, argument === undefined ? Number.POSITIVE_INFINITY : deltaSeconds(argument))
        break
      case 'stale-while-revalidate':
        this.staleWhileRevalidate = agreed(this.staleWhileRevalidate, argument)
        break
      case 'stale-if-error':
        this.staleIfError = agreed(this.staleIfError, argument)
        break
      case 'no-store':
        this.noStore = true
        break
      case 'no-cache':
        if (!this.withhold(argument)) this.noCache = true
        break
      case 'private':
        if (!this.withhold(argument)) this.private = true
        break
      case 'must-understand':
        this.mustUnderstand = true
        break
      case 'public':
        this.public = true
        break
      case 'must-revalidate':
        this.mustRevalidate = true
        break
      case 'proxy-revalidate':
        this.proxyRevalidate = true
        break
      case 'only-if-cached':
        this.onlyIfCached = true
        break
      default:
      // Unknown directives are ignored: RFC 9111 section 5.2.3.
    }
  }

  /** Takes field names; false when there are none, or none that can be read: the directive is then about the whole response. */
  private withhold(argument: string | undefined): boolean {
    if (argument === undefined || !fieldNames.test(argument)) return false
    const names = argument.toLowerCase().split(/[ \t]*,[ \t]*/)
    this.withheld = [...this.withheld, ...names.map((name) => name.trim()).filter((name) => name !== '')]
    return true
  }
}

/** Where a match of the sticky `pattern` at `from` ends; `from` when there is none. */
function endOf(pattern: RegExp, text: string, from: number): number {
  pattern.lastIndex = from
  return pattern.test(text) ? pattern.lastIndex : from
}

/** The value that all occurrences so far agree on; 0 when they do not. */
function agreed(before: number | undefined, argument: string | undefined): number {
  return same(before, deltaSeconds(argument))
}

function same(before: number | undefined, seconds: number): number {
  return before === undefined || before === seconds ? seconds : 0
}

/** delta-seconds (RFC 9111 section 1.2.2); anything else is 0. */
function deltaSeconds(text: string | undefined): number {
  if (text === undefined || !/^\d+$/.test(text)) return 0
  return Math.min(Number(text), MAX_SECONDS)
}

/** Age in seconds; a value that is not one is ignored (RFC 9111 section 5.1), of several the first counts. */
export function parseAge(value: string | string[] | undefined): number {
  return deltaSeconds((typeof value === 'object' ? value[0] : value)?.split(',', 1)[0]?.trim())
}

/** The directives of a request; Pragma: no-cache where there is no Cache-Control (RFC 9111 section 5.4). */
export function requestControl(headers: Readonly<HeaderMap>): CacheControl | undefined {
  if (headers['cache-control'] !== undefined) return parseCacheControl(headers['cache-control'])
  return headers.pragma !== undefined && pragmaNoCache.test(combined(headers.pragma) as string) ? reload : undefined
}

/** A list, in any case. */
const pragmaNoCache = /(?:^|,)[ \t]*no-cache[ \t]*(?:,|$)/i
const reload: CacheControl | undefined = parseCacheControl('no-cache')
