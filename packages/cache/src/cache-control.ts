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

// Pieces of `token [ "=" ( token / quoted-string ) ]`, tried one after the other at a position: one pattern for all of it would take time in the square of the field's length.
const separators = /[ \t,]*/y
const whitespace = /[ \t]*/y
const token = /[!#$%&'*+.^_`|~0-9a-z-]+/iy
const quotedString = /"(?:[^"\\]|\\.)*"/y

/**
 * Parses the field. A malformed max-age, or one repeated with another value, counts as 0, so that in doubt a response is stale (RFC 9111 section 4.2.1).
 * What cannot be parsed at all makes the result as strict as no-store: it may have been meant to be.
 */
export function parseCacheControl(value: string | string[] | undefined): CacheControl | undefined {
  const text = combined(value)
  if (text === undefined) return undefined
  let control = parsed.get(text)
  if (control === undefined) {
    control = new Directives(text)
    if (parsed.size >= MAX_REMEMBERED) parsed.clear()
    if (text.length <= MAX_REMEMBERED_LENGTH) parsed.set(text, control)
  }
  return control
}

/** An origin says few different things: what was parsed is remembered. */
const parsed = new Map<string, CacheControl>()
const MAX_REMEMBERED = 256
const MAX_REMEMBERED_LENGTH = 256

class Directives implements CacheControl {
  maxAge: number | undefined = undefined
  sMaxage: number | undefined = undefined
  minFresh: number | undefined = undefined
  noStore = false
  noCache = false
  private = false
  public = false
  mustRevalidate = false
  proxyRevalidate = false
  onlyIfCached = false

  constructor(text: string) {
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
        this.noStore = true
        return
      }
      this.add(name, argument)
      at = endOf(separators, text, at)
    }
  }

  private add(name: string, argument: string | undefined): void {
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
      case 'no-store':
        this.noStore = true
        break
      case 'no-cache':
        this.noCache = true
        break
      case 'private':
        this.private = true
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
}

/** Where a match of the sticky `pattern` at `from` ends; `from` when there is none. */
function endOf(pattern: RegExp, text: string, from: number): number {
  pattern.lastIndex = from
  return pattern.test(text) ? pattern.lastIndex : from
}

/** The value that all occurrences so far agree on; 0 when they do not. */
function agreed(before: number | undefined, argument: string | undefined): number {
  const seconds = deltaSeconds(argument)
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
