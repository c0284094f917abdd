import type { CacheControl } from '../src/cache-control.ts'
import { parseHttpDate } from '../src/http-date.ts'
import type { NotStoredReason } from '../src/storability.ts'
import { ARRIVAL_MS, type Case } from './differential-cases.ts'
import type { Rewriting } from './differential-reading.ts'

/** What one directive of a Cache-Control field means to each side. False: as if it were not there. */
export interface ReadingDisagreement {
  readonly aspect: 'reading'
  readonly directive: string
  readonly ours: number | boolean
  readonly theirs: number | boolean
  /** What has to be written otherwise for the other side to agree with ours. */
  readonly settledBy: Rewriting | 'unreadable' | undefined
}

/** Whether the answer is stored. From here on both sides have been given one reading of Cache-Control. */
export interface StoringDisagreement {
  readonly aspect: 'storing'
  readonly of: Case
  readonly control: CacheControl | undefined
  readonly ours: 'stored' | NotStoredReason
  readonly theirs: 'stored' | 'request-no-store' | 'method' | 'status' | 'no-store' | 'private' | 'authorization' | 'no freshness'
}

/** How long the stored answer is fresh. Milliseconds. */
export interface LifetimeDisagreement {
  readonly aspect: 'lifetime'
  readonly of: Case
  readonly control: CacheControl | undefined
  readonly ours: number
  readonly theirs: number
  readonly from: 'no-cache' | 'set-cookie' | 'proxy-revalidate' | 's-maxage' | 'max-age' | 'expires' | 'last-modified' | 'immutable' | 'nothing'
}

/** How old it is when its header has just arrived. Milliseconds. */
export interface AgeDisagreement {
  readonly aspect: 'age'
  readonly of: Case
  readonly ours: number
  readonly theirs: number
}

/** Whether it answers the second request at once. From here on both sides have been given one lifetime and one age. */
export interface ReuseDisagreement {
  readonly aspect: 'reuse'
  readonly of: Case
  readonly control: CacheControl | undefined
  readonly asked: CacheControl | undefined
  readonly ours: 'fresh' | 'stale-while-revalidate' | 'max-stale' | 'asks the origin'
  readonly theirs: 'must-revalidate' | 'method' | 'vary' | 'no-cache' | 'max-age' | 'min-fresh' | 'max-stale' | 'stale-while-revalidate' | 'stale' | 'fresh'
  /** Milliseconds beyond the lifetime. */
  readonly staleMs: number
  /** The time is over for which we have kept it. */
  readonly dropped: boolean
}

export type Disagreement = ReadingDisagreement | StoringDisagreement | LifetimeDisagreement | AgeDisagreement | ReuseDisagreement

/** Who is right where this cache and http-cache-semantics 4.3.0 differ. `both`: the RFC leaves it to the cache. */
export interface Ruling {
  readonly name: string
  readonly right: 'ours' | 'both'
  /** Of RFC 9111, where no other is named. */
  readonly section: string
  readonly why: string
  readonly applies: (disagreement: Disagreement) => boolean
}

const reading = (applies: (d: ReadingDisagreement) => boolean) => (d: Disagreement) => d.aspect === 'reading' && applies(d)
const storing = (applies: (d: StoringDisagreement) => boolean) => (d: Disagreement) => d.aspect === 'storing' && applies(d)
const lifetime = (applies: (d: LifetimeDisagreement) => boolean) => (d: Disagreement) => d.aspect === 'lifetime' && applies(d)
const age = (applies: (d: AgeDisagreement) => boolean) => (d: Disagreement) => d.aspect === 'age' && applies(d)
const reuse = (applies: (d: ReuseDisagreement) => boolean) => (d: Disagreement) => d.aspect === 'reuse' && applies(d)

const first = (value: string | string[] | undefined): string | undefined => (typeof value === 'object' ? value[0] : value)
/** What Date.parse takes is not what an HTTP-date is, or not the same time. */
const otherDate = (value: string | string[] | undefined): boolean => {
  const text = first(value)
  return text !== undefined && text !== '' && Number.isFinite(Date.parse(text)) && parseHttpDate(text) !== Date.parse(text)
}
const apparentAgeMs = ({ response }: Case): number => Math.max(0, ARRIVAL_MS - (parseHttpDate(response.date) ?? ARRIVAL_MS))
const ageFieldMs = ({ response }: Case): number => {
  const text = first(response.age)?.split(',')[0]?.trim() ?? ''
  return /^\d+$/.test(text) ? Math.min(Number(text), 2 ** 31) * 1000 : 0
}
/** The minimum that http-cache-semantics gives to immutable: a day in milliseconds, used as seconds. Here in milliseconds. */
const THEIR_IMMUTABLE_MS = 86_400_000_000
const datesDiffer = (d: LifetimeDisagreement): boolean =>
  d.theirs !== THEIR_IMMUTABLE_MS &&
  ((d.from === 'expires' && typeof d.of.response.expires === 'string' && (otherDate(d.of.response.expires) || otherDate(d.of.response.date))) ||
    (d.from === 'last-modified' && d.of.response.expires !== '' && (otherDate(d.of.response['last-modified']) || otherDate(d.of.response.date))))
const isMiss = (theirs: ReuseDisagreement['theirs']): boolean => !(theirs === 'fresh' || theirs === 'max-stale' || theirs === 'stale-while-revalidate')
/** By a Pragma that the other side does not see. */
const isReload = (d: ReuseDisagreement): boolean => d.asked === undefined && d.of.again.headers.pragma === 'No-Cache'
/** What keeps the response from being served stale. */
const forbiddenBy = (control: CacheControl | undefined): 'no-cache' | 'proxy-revalidate' | 's-maxage' | 'several' | undefined => {
  const by: ('no-cache' | 'proxy-revalidate' | 's-maxage')[] = []
  if (control?.noCache) by.push('no-cache')
  if (control?.proxyRevalidate) by.push('proxy-revalidate')
  if (control?.sMaxage !== undefined && !control.staleWhileRevalidate && !control.staleIfError) by.push('s-maxage')
  return by.length > 1 ? 'several' : by[0]
}
/** Whether both requests say the same in these fields: members apart from case, order and repetition where that means nothing, whitespace everywhere. */
const selectAlike = ({ again, request }: Case): boolean =>
  ['accept-encoding', 'accept-language', 'x-a'].every((name) => {
    const [before, now] = [request[name], again.headers[name]]
    if (before === undefined || now === undefined) return before === now
    const members = (value: string | string[]): string[] =>
      String(value)
        .split(',')
        .map((member) => member.trim())
    const meaning = (value: string | string[]): string => (name === 'x-a' ? members(value).join() : [...new Set(members(value).map((member) => member.toLowerCase()))].sort().join())
    return meaning(before) === meaning(now)
  })
/** The same of the fields that Vary names. */
const selectedAlike = (of: Case): boolean => {
  const named = String(of.response.vary).toLowerCase()
  const only = (fields: Case['request']): Case['request'] => Object.fromEntries(Object.entries(fields).filter(([name]) => named.includes(name)))
  return selectAlike({ ...of, request: only(of.request), again: { ...of.again, headers: only(of.again.headers) } })
}

export const rulings: readonly Ruling[] = [
  {
    name: 'a field that cannot be read',
    right: 'ours',
    section: '4.2.1',
    why: 'Caches are encouraged to take what has invalid freshness information for stale; the field may have been meant to forbid storing, so that nothing is gained by guessing.',
    // Whatever else either side has read out of it: it neither lets be stored nor answers from the store.
    applies: reading((d) => d.settledBy === 'unreadable' && (d.directive === 'no-store' || d.directive === 'no-cache' ? d.ours === true : true))
  },
  {
    name: 'a quoted string is one argument',
    right: 'ours',
    section: '5.2, RFC 9110 5.6.4',
    why: 'An argument may be a quoted-string, in which commas and equal signs are text: what looks like a directive in there is none.',
    applies: reading((d) => d.settledBy === 'quoted')
  },
  {
    name: 'no-cache and private with field names',
    right: 'ours',
    section: '5.2.2.4, 5.2.2.7',
    why: 'With field names they are about these fields alone; we leave the fields out, and the other side takes it for the whole response, which is allowed but not asked for.',
    applies: reading((d) => d.settledBy === 'named fields' && (d.directive === 'no-cache' || d.directive === 'private') && d.ours === false)
  },
  {
    name: 'names in any case',
    right: 'ours',
    section: '5.2',
    why: 'Directives are identified by a token compared without regard to case: No-Store is no-store.',
    applies: reading((d) => d.settledBy === 'letter case')
  },
  {
    name: 'an argument where none belongs',
    right: 'ours',
    section: '5.2',
    why: 'no-store= has an argument of no characters, which is malformed; taken for the directive it errs towards not storing. The other side takes it for nothing.',
    applies: reading((d) => d.settledBy === 'argument of a flag' && d.ours === true && d.theirs === false)
  },
  {
    name: 'malformed delta-seconds',
    right: 'ours',
    section: '1.2.2, 4.2.1',
    why: 'delta-seconds is digits alone, and with invalid freshness information a response is best taken for stale: 60x, 1.5 and -1 are 0. The other side reads the leading digits, or a later and less specific source of freshness.',
    applies: reading((d) => d.settledBy === 'delta-seconds' && d.ours === 0)
  },
  {
    name: 'a directive repeated with another value',
    right: 'ours',
    section: '4.2.1',
    why: 'Either the first occurrence should be used or the response be considered stale; we do the latter, and the other side uses the last.',
    applies: reading((d) => d.settledBy === 'repeated' && d.ours === 0)
  },
  {
    name: 'delta-seconds beyond 2^31',
    right: 'both',
    section: '1.2.2',
    why: 'A value larger than the greatest that can be represented is 2^31 or the greatest the recipient can represent; nothing differs before 68 years have passed.',
    applies: reading((d) => d.settledBy === 'overflow' && d.ours === 2 ** 31)
  },

  {
    name: 'HEAD and POST are not stored',
    right: 'both',
    section: '3, RFC 9110 9.3.2, 9.3.3',
    why: 'A cache may store them. An answer to HEAD without its body answers nothing but another HEAD; one to POST is kept where its Content-Location makes it the answer to a GET, which the other side does not look at.',
    applies: storing((d) => d.ours === 'method' && d.theirs === 'stored')
  },
  {
    name: 'statuses that are not known',
    right: 'ours',
    section: '3, 5.2.2.3',
    why: 'A status need not be understood to be stored, unless must-understand says so; it has to be final, and no 206 or 304 that is not understood. The other side stores fourteen of them.',
    applies: storing((d) => d.ours === 'stored' && d.theirs === 'status' && d.of.status >= 200 && d.of.status !== 206 && d.of.status !== 304)
  },
  {
    name: 'must-understand',
    right: 'ours',
    section: '5.2.2.3',
    why: 'A cache that knows the directive and the status ignores the no-store beside it, which is there for caches that know neither.',
    applies: storing((d) => d.ours === 'stored' && d.theirs === 'no-store' && d.control?.mustUnderstand === true)
  },
  {
    name: 'an empty Authorization',
    right: 'ours',
    section: '3.5',
    why: 'What counts is that the request has the field, whatever is in it; an empty string is no field to the other side.',
    applies: storing((d) => d.ours === 'authorization' && d.theirs === 'stored' && d.of.request.authorization === '')
  },
  {
    name: 'an empty Expires is an Expires',
    right: 'ours',
    section: '5.3',
    why: 'Invalid dates, such as 0, are in the past: the response is stale, but says so itself and may be kept to be confirmed, whatever its status.',
    applies: storing((d) => d.ours === 'stored' && d.theirs === 'no freshness' && d.of.response.expires === '')
  },
  {
    name: 'private and no-cache of a field that cannot be left out',
    right: 'both',
    section: '5.2.2.4, 5.2.2.7',
    why: 'A shared cache may not store, or not use, these fields, and without them the response would be another one: we do not store it.',
    applies: storing((d) => d.ours === 'private' && d.theirs === 'stored' && d.control?.private === false)
  },
  {
    name: 'Set-Cookie is not stored',
    right: 'both',
    section: '7.3',
    why: 'The field does not inhibit caching, and a cookie handed to others is the worst that a shared cache can do: not storing is always allowed. The other side stores it, fresh if it is public.',
    applies: storing((d) => d.ours === 'set-cookie' && d.theirs === 'stored')
  },
  {
    name: 'Vary: * is not stored',
    right: 'both',
    section: '4.1',
    why: 'It always fails to match: the other side stores it, and never answers from it.',
    applies: storing((d) => d.ours === 'vary-any' && d.theirs === 'stored')
  },
  {
    name: 'what can never be used is not stored',
    right: 'both',
    section: '3',
    why: 'Without freshness, without a validator and without leave to be served stale it could answer nothing but a max-stale; storing is never required.',
    applies: storing((d) => d.ours === 'no-freshness' && d.theirs === 'stored')
  },

  {
    name: 'Pragma in a response',
    right: 'ours',
    section: '5.4',
    why: 'What Pragma: no-cache means in a response was never specified: it is no substitute for Cache-Control there.',
    applies: lifetime((d) => d.from === 'no-cache' && d.control === undefined && d.of.response.pragma === 'no-cache')
  },
  {
    name: 'Set-Cookie that is left out',
    right: 'ours',
    section: '5.2.2.7, 7.3',
    why: 'private="set-cookie" takes the field out of what is stored; the rest is as fresh as it says.',
    applies: lifetime((d) => d.from === 'set-cookie' && d.theirs === 0 && d.control?.withheld.includes('set-cookie') === true)
  },
  {
    name: 'proxy-revalidate while fresh',
    right: 'ours',
    section: '5.2.2.8',
    why: 'Like must-revalidate it is about a response that has become stale; the other side takes it for a lifetime of 0.',
    applies: lifetime((d) => d.from === 'proxy-revalidate' && d.theirs === 0)
  },
  {
    name: 'immutable is no lifetime',
    right: 'ours',
    section: 'RFC 8246 2',
    why: 'It says that the response does not change while it is fresh, not for how long that is; the other side means a day at least, and makes it a thousand of them.',
    applies: lifetime(
      (d) => (d.from === 'immutable' || d.from === 'expires' || d.from === 'last-modified') && d.theirs === THEIR_IMMUTABLE_MS && /immutable/.test(String(d.of.response['cache-control']))
    )
  },
  {
    name: 'Expires twice',
    right: 'ours',
    section: '4.2.1',
    why: 'With two Expires either the first should be used or the response be considered stale; we do the latter, the other side sees the first.',
    applies: lifetime((d) => d.from === 'expires' && d.ours === 0 && d.theirs !== THEIR_IMMUTABLE_MS && typeof d.of.response.expires === 'object')
  },
  {
    name: 'an empty Expires is in the past',
    right: 'ours',
    section: '5.3',
    why: 'An invalid date is in the past, and is not to be passed over for a guess from Last-Modified.',
    applies: lifetime((d) => d.from === 'last-modified' && d.ours === 0 && d.theirs !== THEIR_IMMUTABLE_MS && d.of.response.expires === '')
  },
  {
    name: 'what Date.parse takes for a date',
    right: 'ours',
    section: '4.2, RFC 9110 5.6.7',
    why: 'An HTTP-date has one of three forms, compared with regard to case, in GMT; anything else, such as an ISO 8601 date or another zone, is invalid.',
    applies: lifetime(datesDiffer)
  },
  {
    name: 'a day of guessed freshness at most',
    right: 'both',
    section: '4.2.2',
    why: 'A heuristic is the cache’s own affair; ours ends at a day, as a tenth of the years since a last change would be months.',
    applies: lifetime((d) => d.from === 'last-modified' && d.ours === 86_400_000 && d.theirs > d.ours && d.theirs !== THEIR_IMMUTABLE_MS && !datesDiffer(d))
  },

  {
    name: 'the age that Date shows',
    right: 'ours',
    section: '4.2.3',
    why: 'corrected_initial_age is the larger of the apparent age, by Date, and of what Age says; the other side does not look at Date.',
    applies: age((d) => d.ours === apparentAgeMs(d.of) && apparentAgeMs(d.of) > ageFieldMs(d.of) + d.of.delayMs)
  },
  {
    name: 'malformed Age',
    right: 'ours',
    section: '5.1',
    why: 'A value that is no non-negative integer should be ignored: the other side reads the leading digits, and a negative age.',
    applies: age((d) => d.ours >= apparentAgeMs(d.of) && d.ours === ageFieldMs(d.of) + d.of.delayMs && ageFieldMs(d.of) === 0 && d.theirs !== 0)
  },
  {
    name: 'Age beyond 2^31',
    right: 'both',
    section: '1.2.2',
    why: 'Larger values count as 2^31, or the greatest that can be represented.',
    applies: age((d) => d.ours === ageFieldMs(d.of) + d.of.delayMs && ageFieldMs(d.of) === 2 ** 31 * 1000 && d.theirs > 2 ** 31 * 1000)
  },
  {
    name: 'the time the answer took',
    right: 'ours',
    section: '4.2.3',
    why: 'corrected_age_value is Age and the delay from request to response, which the other side does not know.',
    applies: age((d) => d.of.delayMs > 0 && d.ours === ageFieldMs(d.of) + d.of.delayMs && d.ours >= apparentAgeMs(d.of) && d.theirs === ageFieldMs(d.of))
  },

  {
    name: 'must-revalidate while fresh',
    right: 'ours',
    section: '5.2.2.2',
    why: 'Once the response has become stale it must not be used without validation; while it is fresh the directive asks for nothing.',
    applies: reuse((d) => d.theirs === 'must-revalidate' && d.ours === 'fresh' && d.staleMs < 0)
  },
  {
    name: 'HEAD from what GET has stored',
    right: 'ours',
    section: '4, RFC 9110 9.3.2',
    why: 'The method of the stored request must allow it to be used for the presented one: the answer to GET does so for HEAD.',
    applies: reuse((d) => d.theirs === 'method' && d.ours !== 'asks the origin' && d.of.again.method === 'HEAD' && d.of.method === 'GET')
  },
  {
    name: 'selecting fields that mean the same',
    right: 'ours',
    section: '4.1',
    why: 'Fields match when one can be made of the other by normalising what does not differ in meaning: whitespace, case, the order of members of one weight.',
    applies: reuse((d) => d.theirs === 'vary' && d.ours !== 'asks the origin' && selectedAlike(d.of))
  },
  {
    name: 'Pragma beside Cache-Control',
    right: 'ours',
    section: '5.4, RFC 7234 5.4',
    why: 'Pragma: no-cache stands in for a missing Cache-Control; where there is one, that counts alone.',
    applies: reuse((d) => d.theirs === 'no-cache' && d.ours !== 'asks the origin' && d.asked?.noCache === false && d.of.again.headers['cache-control'] !== undefined)
  },
  {
    name: 'Pragma with something else',
    right: 'ours',
    section: '5.4, RFC 7234 5.4',
    why: 'Another directive whose name begins with no-cache is another directive.',
    applies: reuse((d) => d.theirs === 'no-cache' && d.ours !== 'asks the origin' && d.asked === undefined && d.of.again.headers.pragma === 'no-caches')
  },
  {
    name: 'Pragma in any case',
    right: 'ours',
    section: '5.4, RFC 7234 5.4',
    why: 'no-cache is a literal of ABNF, compared without regard to case (RFC 5234 section 2.3).',
    applies: reuse((d) => !isMiss(d.theirs) && d.ours === 'asks the origin' && isReload(d))
  },
  {
    name: 'max-stale to the second',
    right: 'ours',
    section: '5.2.1.2',
    why: 'The client takes what has exceeded its lifetime by no more than this: the limit itself is within.',
    applies: reuse((d) => d.theirs === 'stale' && d.ours === 'max-stale' && d.asked?.maxStale !== undefined && d.staleMs === d.asked.maxStale * 1000)
  },
  {
    name: 'max-stale of no-cache',
    right: 'ours',
    section: '4.2.4, 5.2.2.4',
    why: 'Such a response must not be used for another request without validation, whatever the client would take.',
    applies: reuse((d) => d.theirs === 'max-stale' && d.ours === 'asks the origin' && forbiddenBy(d.control) === 'no-cache' && !d.dropped)
  },
  {
    name: 'max-stale of proxy-revalidate',
    right: 'ours',
    section: '4.2.4, 5.2.2.8',
    why: 'Once stale it must not be used by a shared cache without validation, whatever the client would take; the other side minds must-revalidate alone.',
    applies: reuse((d) => d.theirs === 'max-stale' && d.ours === 'asks the origin' && forbiddenBy(d.control) === 'proxy-revalidate' && !d.dropped)
  },
  {
    name: 'max-stale of s-maxage',
    right: 'ours',
    section: '4.2.4, 5.2.2.10',
    why: 's-maxage incorporates proxy-revalidate for a shared cache.',
    applies: reuse((d) => d.theirs === 'max-stale' && d.ours === 'asks the origin' && forbiddenBy(d.control) === 's-maxage' && !d.dropped)
  },
  {
    name: 'a stale answer that several directives forbid',
    right: 'ours',
    section: '4.2.4',
    why: 'Any one of no-cache, proxy-revalidate and s-maxage is enough.',
    applies: reuse(
      (d) =>
        (d.theirs === 'max-stale' || d.theirs === 'stale-while-revalidate') &&
        d.ours === 'asks the origin' &&
        forbiddenBy(d.control) === 'several' &&
        !(d.theirs === 'max-stale' ? d.dropped : isReload(d))
    )
  },
  {
    name: 'max-stale of what is not kept any longer',
    right: 'both',
    section: '4.2.4',
    why: 'max-stale allows a stale answer and requires none: a response is kept for as long as it can be confirmed, or served stale by what its origin says.',
    applies: reuse((d) => d.theirs === 'max-stale' && d.ours === 'asks the origin' && d.dropped)
  },
  {
    name: 'stale-while-revalidate of no-cache',
    right: 'ours',
    section: '4.2.4, 5.2.2.4',
    why: 'no-cache forbids any use without validation: a directive that may be ignored does not take that back.',
    applies: reuse((d) => d.theirs === 'stale-while-revalidate' && d.ours === 'asks the origin' && forbiddenBy(d.control) === 'no-cache' && !isReload(d))
  },
  {
    name: 'stale-while-revalidate of proxy-revalidate',
    right: 'ours',
    section: '4.2.4, 5.2.2.8',
    why: 'proxy-revalidate forbids a stale answer: a directive that may be ignored does not take that back.',
    applies: reuse((d) => d.theirs === 'stale-while-revalidate' && d.ours === 'asks the origin' && forbiddenBy(d.control) === 'proxy-revalidate' && !isReload(d))
  },
  {
    name: 'stale-while-revalidate for a client that names an age',
    right: 'ours',
    section: '5.2.1.1, 5.2.1.3',
    why: 'With max-age, and without max-stale, the client does not wish for a stale response; with min-fresh it wants one that stays fresh.',
    applies: reuse(
      (d) => d.theirs === 'stale-while-revalidate' && d.ours === 'asks the origin' && forbiddenBy(d.control) === undefined && (d.asked?.maxAge !== undefined || d.asked?.minFresh !== undefined)
    )
  }
]
