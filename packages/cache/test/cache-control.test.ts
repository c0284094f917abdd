import { describe, expect, test } from 'vitest'
import { type CacheControl, parseAge, parseCacheControl } from '../src/cache-control.ts'

const nothing: CacheControl = {
  maxAge: undefined,
  sMaxage: undefined,
  minFresh: undefined,
  maxStale: undefined,
  staleWhileRevalidate: undefined,
  staleIfError: undefined,
  noStore: false,
  noCache: false,
  private: false,
  withheld: [],
  public: false,
  mustRevalidate: false,
  proxyRevalidate: false,
  mustUnderstand: false,
  isTargeted: false,
  onlyIfCached: false
}

const readable: [string | string[], Partial<CacheControl>][] = [
  ['', {}],
  [' , ,, ', {}],
  ['max-age=60', { maxAge: 60 }],
  ['MAX-AGE=60', { maxAge: 60 }],
  ['max-age="60"', { maxAge: 60 }],
  ['max-age = 60', { maxAge: 60 }],
  ['max-age=\t60', { maxAge: 60 }],
  ['s-maxage=5,max-age=60', { sMaxage: 5, maxAge: 60 }],
  [['max-age=60', 'public'], { maxAge: 60, public: true }],
  ['public, max-age=60, must-revalidate, proxy-revalidate', { public: true, maxAge: 60, mustRevalidate: true, proxyRevalidate: true }],
  [',max-age=60,,no-store,', { maxAge: 60, noStore: true }],
  ['no-cache', { noCache: true }],
  ['no-cache="set-cookie, X-b"', { withheld: ['set-cookie', 'x-b'] }],
  ['no-cache="x", no-cache', { noCache: true, withheld: ['x'] }],
  ['private', { private: true }],
  ['private="x-user"', { withheld: ['x-user'] }],
  ['private=x-user', { withheld: ['x-user'] }],
  ['private="a", no-cache=" b ,,c, "', { withheld: ['a', 'b', 'c'] }],
  // Names that cannot be read could be any.
  ['private=""', { private: true }],
  ['private=","', { private: true }],
  ['private="a b"', { private: true }],
  ['private="x\\-user"', { private: true }],
  ['no-cache="é"', { noCache: true }],
  ['only-if-cached, min-fresh=3', { onlyIfCached: true, minFresh: 3 }],
  // What stands inside quotes is no directive.
  ['extension="no-store, max-age=9", max-age=1', { maxAge: 1 }],
  ['extension="a \\" , no-store", max-age=1', { maxAge: 1 }],
  ['x-max-age=9, max-age-x=8, xno-store', {}],
  ['stale-while-revalidate=30, immutable, foo=bar, baz', { staleWhileRevalidate: 30 }],
  ['stale-if-error=9, stale-while-revalidate=x', { staleIfError: 9, staleWhileRevalidate: 0 }],
  ['must-understand, no-store', { mustUnderstand: true, noStore: true }],
  ['max-stale', { maxStale: Number.POSITIVE_INFINITY }],
  ['max-stale=7', { maxStale: 7 }],
  ['max-stale=x', { maxStale: 0 }],
  // Without an argument it was what it said last: "however stale" won where it came second.
  ['max-stale=7, max-stale', { maxStale: 0 }],
  ['max-stale, max-stale=7', { maxStale: 0 }],
  ['max-stale, max-stale', { maxStale: Number.POSITIVE_INFINITY }],
  // Malformed lifetimes are none at all.
  ['max-age', { maxAge: 0 }],
  ['max-age=', { maxAge: 0 }],
  ['max-age=-1', { maxAge: 0 }],
  ['max-age=+1', { maxAge: 0 }],
  ['max-age=1.5', { maxAge: 0 }],
  ['max-age=1e9', { maxAge: 0 }],
  ['max-age=0x10', { maxAge: 0 }],
  ["max-age='60'", { maxAge: 0 }],
  ['max-age="6\\0"', { maxAge: 0 }],
  ['max-age=60s', { maxAge: 0 }],
  // Repeated: the value all agree on, or none.
  ['max-age=60, max-age=60', { maxAge: 60 }],
  ['max-age=60, max-age=120', { maxAge: 0 }],
  [['max-age=60', 'max-age=120'], { maxAge: 0 }],
  ['max-age=60, max-age=120, max-age=60', { maxAge: 0 }],
  ['s-maxage=1, s-maxage=x', { sMaxage: 0 }],
  // Beyond what fits: RFC 9111 section 1.2.2.
  ['max-age=2147483648', { maxAge: 2 ** 31 }],
  ['max-age=99999999999999999999999999', { maxAge: 2 ** 31 }]
]

describe('parseCacheControl', () => {
  test('no field at all', () => expect(parseCacheControl(undefined)).toBeUndefined())

  test.each(readable)('%j', (text, expected) => {
    expect({ ...parseCacheControl(text) }).toEqual({ ...nothing, ...expected })
  })

  // It may have been meant to be no-store.
  test.each(['=', '=60', '"max-age=60"', 'max-age=60 public', 'max-age="60', 'max-age=60;public', 'max-age=6"0"', '@', 'public, (no-store)', 'é=1', 'no-store"', 'private="x'])(
    'unreadable counts as no-store: %j',
    (text) => {
      expect(parseCacheControl(text)).toMatchObject({ noStore: true, noCache: true })
    }
  )

  // must-understand takes the place of no-store, and so took the place of the one that stood for what could not be read: "private" was lost, and the response stored.
  test('what cannot be read is no-store also beside must-understand', () => {
    expect(parseCacheControl('must-understand, max-age=60 private')).toMatchObject({ noStore: true, mustUnderstand: false })
  })

  // A field of spaces made the first parser, one pattern with three places for whitespace, try all splits of them: seconds of work for one request header.
  test.each([
    ['spaces before a quote', `a=${' '.repeat(200_000)}"`],
    ['spaces alone', ' '.repeat(200_000)],
    ['spaces after a name', `a${' '.repeat(200_000)}b`],
    ['commas', ','.repeat(200_000)],
    ['an open quote', `a="${'\\"'.repeat(100_000)}`],
    ['one long token', 'a'.repeat(200_000)],
    ['many directives', 'max-age=1,'.repeat(20_000)]
  ])('reads a huge field in linear time: %s', (_, text) => {
    const start = performance.now()
    parseCacheControl(text)
    expect(performance.now() - start).toBeLessThan(1000)
  })
})

test.each([
  [undefined, 0],
  ['0', 0],
  ['7', 7],
  [' 7 ', 7],
  ['7, 9', 7],
  [['7', '9'], 7],
  ['-7', 0],
  ['7.5', 0],
  ['x', 0],
  ['', 0],
  [[], 0],
  ['99999999999', 2 ** 31]
])('Age %j is %d seconds', (value, expected) => {
  expect(parseAge(value as string)).toBe(expected)
})
