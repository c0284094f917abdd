import fc from 'fast-check'

/** Lower-case names; repeated lines as an array. */
export type Fields = Readonly<Record<string, string | string[]>>

/** Two requests for one URL, and the answer to the first. */
export interface Case {
  readonly method: string
  readonly request: Fields
  readonly status: number
  readonly response: Fields
  /** From the first request to its answer. */
  readonly delayMs: number
  readonly again: { readonly method: string; readonly headers: Fields }
  /** When the second request comes: counted from a moment that decides something, or from the answer. */
  readonly when: { readonly from: 'answer' | 'expiry' | 'stale-end' | 'max-age' | 'min-fresh' | 'max-stale'; readonly offsetMs: number }
}

/** When the first answer arrives. Whole seconds, as dates are. */
export const ARRIVAL_MS = Date.UTC(2026, 0, 15, 12)

const date = (offsetSeconds: number): string => new Date(ARRIVAL_MS + offsetSeconds * 1000).toUTCString()

const plainSeconds = fc.constantFrom('0', '1', '10', '60', '60', '100', '600', '3600', '90000')
const oddSeconds = fc.constantFrom('', '-1', '1.5', '60x', 'abc', '"60"', '"6', "'60'", '1e3', '+5', ' 60', '99999999999', '2147483649', '0060', '6 0', 'é')
const seconds = fc.oneof({ weight: 8, arbitrary: plainSeconds }, { weight: 1, arbitrary: oddSeconds })

const cased = (name: string): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 12, arbitrary: fc.constant(name) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        name.toUpperCase(),
        name.replace(/^./, (c) => c.toUpperCase())
      )
    }
  )
const timed = (name: string): fc.Arbitrary<string> => fc.tuple(cased(name), fc.constantFrom('=', '=', '=', '=', ' = '), seconds).map((parts) => parts.join(''))
const flag = (name: string): fc.Arbitrary<string> => fc.tuple(cased(name), fc.constantFrom('', '', '', '', '', '', '', '=', '=1', '="x"')).map((parts) => parts.join(''))

/** Not directives, or directives that hold something which looks like one. */
const odd = fc.constantFrom(
  'max-age',
  'foo',
  'foo=bar',
  'ext="a, no-store, b"',
  'ext="a, no-cache, b"',
  'ext="a, max-age=5"',
  'ext="x\\", private, y"',
  '=5',
  'max-age 60',
  '"no-store"',
  'no-store"',
  '@',
  'immutable',
  'no-transform',
  ''
)

const responseDirective = fc.oneof(
  { weight: 6, arbitrary: timed('max-age') },
  { weight: 3, arbitrary: timed('s-maxage') },
  { weight: 3, arbitrary: timed('stale-while-revalidate') },
  { weight: 1, arbitrary: timed('stale-if-error') },
  { weight: 1, arbitrary: flag('no-store') },
  { weight: 2, arbitrary: flag('no-cache') },
  { weight: 1, arbitrary: flag('private') },
  { weight: 2, arbitrary: flag('public') },
  { weight: 2, arbitrary: flag('must-revalidate') },
  { weight: 2, arbitrary: flag('proxy-revalidate') },
  { weight: 1, arbitrary: flag('must-understand') },
  {
    weight: 1,
    arbitrary: fc.constantFrom('no-cache="x-a"', 'private="set-cookie"', 'private="set-cookie, x-a"', 'no-cache="vary"', 'private="content-type"', 'private=""', 'private="a b"', 'No-Cache="x"')
  },
  { weight: 2, arbitrary: odd }
)
const requestDirective: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: timed('max-age') },
  { weight: 4, arbitrary: timed('min-fresh') },
  { weight: 4, arbitrary: timed('max-stale') },
  { weight: 1, arbitrary: fc.constantFrom('max-stale', 'Max-Stale') },
  { weight: 1, arbitrary: flag('no-cache') },
  { weight: 1, arbitrary: flag('no-store') },
  { weight: 1, arbitrary: odd }
)
const againDirective = fc.oneof({ weight: 12, arbitrary: requestDirective }, { weight: 1, arbitrary: fc.constant('only-if-cached') })

const list = (directive: fc.Arbitrary<string>, maxLength: number): fc.Arbitrary<string> =>
  fc.tuple(fc.array(directive, { maxLength }), fc.constantFrom(', ', ', ', ', ', ',', ' ,\t', ', ,')).map(([directives, separator]) => directives.join(separator))

const ofResponse = fc.oneof({ weight: 5, arbitrary: list(responseDirective, 3) }, { weight: 1, arbitrary: fc.tuple(list(responseDirective, 2), list(responseDirective, 2)) })

const maybe = <T>(arbitrary: fc.Arbitrary<T>, present: number, absent: number): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: present, arbitrary }, { weight: absent, arbitrary: fc.constant(undefined) })

/** Without the fields that are undefined. */
const fields = (arbitrary: fc.Arbitrary<Record<string, string | string[] | undefined>>): fc.Arbitrary<Fields> =>
  arbitrary.map((record) => Object.fromEntries(Object.entries(record).filter((entry): entry is [string, string | string[]] => entry[1] !== undefined)))

const httpDate = (...offsets: number[]): fc.Arbitrary<string> => fc.constantFrom(...offsets).map(date)
const noDate = fc.constantFrom(
  '0',
  '-1',
  '',
  '',
  'never',
  '2026-01-15',
  '2026-01-15T13:00:00Z',
  'Thu, 15 Jan 2026 13:00:00 +0000',
  'Thu, 15 Jan 2026 13:00:00 UTC',
  'Thu, 32 Jan 2026 13:00:00 GMT',
  '15 Jan 2026 13:00:00 GMT',
  'thu, 15 jan 2026 13:00:00 gmt'
)
const otherForm = fc.constantFrom('Thursday, 15-Jan-26 13:00:00 GMT', 'Thu Jan 15 13:00:00 2026')

const responseFields = fields(
  fc.record({
    'cache-control': maybe<string | string[]>(ofResponse, 6, 1),
    expires: maybe<string | string[]>(
      fc.oneof<fc.WeightedArbitrary<string | string[]>[]>(
        { weight: 5, arbitrary: httpDate(-60, 0, 1, 60, 3600, 1_000_000) },
        { weight: 2, arbitrary: noDate },
        { weight: 1, arbitrary: otherForm },
        { weight: 1, arbitrary: fc.tuple(httpDate(60, 3600), httpDate(60, 3600)) }
      ),
      1,
      2
    ),
    date: maybe(fc.oneof({ weight: 6, arbitrary: httpDate(0, 0, 0, -1, -30, -100, 50) }, { weight: 1, arbitrary: noDate }, { weight: 1, arbitrary: otherForm }), 3, 1),
    age: maybe<string | string[]>(
      fc.oneof<fc.WeightedArbitrary<string | string[]>[]>({ weight: 5, arbitrary: plainSeconds }, { weight: 2, arbitrary: oddSeconds }, { weight: 1, arbitrary: fc.constantFrom('5, 9', ['5', '9']) }),
      1,
      3
    ),
    'last-modified': maybe(fc.oneof({ weight: 6, arbitrary: httpDate(-1, -1000, -36_000, -10_000_000, 0, 60) }, { weight: 1, arbitrary: noDate }), 1, 2),
    etag: maybe(fc.constantFrom('"a"', 'W/"a"', 'bare'), 1, 2),
    vary: maybe(fc.constantFrom('accept-encoding', 'Accept-Language, x-a', 'x-a', '*', 'x-a, *', ''), 1, 3),
    'set-cookie': maybe(fc.constantFrom<(string | string[])[]>('a=1', ['a=1', 'b=2']), 1, 7),
    pragma: maybe(fc.constantFrom('no-cache', 'x'), 1, 9)
  })
)

const selecting = {
  'accept-encoding': maybe(fc.constantFrom('gzip', 'gzip, br', 'br,gzip', 'gzip,  br', 'GZIP', ''), 4, 1),
  'accept-language': maybe(fc.constantFrom('en', 'de', 'de, en;q=0.5', 'en;q=0.5,de', 'de;q=0.5, en;q=0.5'), 1, 1),
  'x-a': maybe(fc.constantFrom('1', '2', ' 1', 'a,b', 'a, b'), 1, 1)
}
const authorization = fc.constantFrom('Bearer x', 'Bearer x', '')
const pragma = fc.constantFrom('no-cache', 'No-Cache', 'x, no-cache', 'no-caches', 'x')

const anyCase = fc.record({
  method: fc.oneof({ weight: 12, arbitrary: fc.constant('GET') }, { weight: 1, arbitrary: fc.constantFrom('HEAD', 'POST', 'PUT') }),
  request: fields(fc.record({ ...selecting, 'cache-control': maybe(list(requestDirective, 2), 1, 5), authorization: maybe(authorization, 1, 5), pragma: maybe(pragma, 1, 11) })),
  status: fc.oneof({ weight: 6, arbitrary: fc.constant(200) }, { weight: 3, arbitrary: fc.constantFrom(203, 204, 206, 299, 301, 302, 304, 307, 400, 404, 410, 500, 501, 503, 599) }),
  response: responseFields,
  delayMs: fc.constantFrom(0, 0, 0, 1, 1500, 20_000),
  again: fc.record({
    method: fc.constantFrom('GET', 'GET', 'GET', 'GET', 'GET', 'HEAD'),
    headers: fields(fc.record({ ...selecting, 'cache-control': maybe(list(againDirective, 2), 1, 2), authorization: maybe(authorization, 1, 9), pragma: maybe(pragma, 1, 7) }))
  }),
  when: fc.record({
    from: fc.constantFrom('answer', 'expiry', 'expiry', 'stale-end', 'max-age', 'min-fresh', 'max-stale', 'max-stale'),
    offsetMs: fc.constantFrom(-10_000, -1000, -1, 0, 0, 1, 1000, 10_000, 100_000)
  })
})

/** As a rule both requests select the same variant: nothing else would be compared otherwise. */
export const cases: fc.Arbitrary<Case> = fc.tuple(anyCase, fc.constantFrom(true, true, false)).map(([{ again, ...rest }, alike]) => {
  const headers: Record<string, string | string[]> = { ...again.headers }
  if (alike) {
    for (const name in selecting) {
      const value = rest.request[name]
      if (value === undefined) delete headers[name]
      else headers[name] = value
    }
  }
  return { ...rest, again: { ...again, headers } }
})
