import { expect, test } from 'vitest'
import { parseHttpDate } from '../src/http-date.ts'

const at = Date.UTC(1994, 10, 6, 8, 49, 37)

test.each([
  ['Sun, 06 Nov 1994 08:49:37 GMT', at],
  ['Sunday, 06-Nov-94 08:49:37 GMT', at],
  ['Sun Nov  6 08:49:37 1994', at],
  ['Thu, 29 Feb 2024 23:59:60 GMT', Date.UTC(2024, 1, 29, 23, 59, 60)],
  ['Tue, 29 Feb 2000 00:00:00 GMT', Date.UTC(2000, 1, 29)],
  ['Fri, 31 Dec 9999 23:59:59 GMT', Date.UTC(9999, 11, 31, 23, 59, 59)],
  // Two digits: never more than 50 years ahead.
  ['Tuesday, 01-Jan-30 00:00:00 GMT', Date.UTC(2030, 0, 1)],
  ['Friday, 01-Jan-99 00:00:00 GMT', Date.UTC(1999, 0, 1)]
])('%s', (text, expected) => expect(parseHttpDate(text)).toBe(expected))

test.each([
  undefined,
  '',
  '0',
  '-1',
  'never',
  '784111777',
  'Sun, 06 Nov 1994 08:49:37',
  'Sun, 06 Nov 1994 08:49:37 UTC',
  'Sun, 06 Nov 1994 08:49:37 +0000',
  'Sun, 6 Nov 1994 08:49:37 GMT',
  'sun, 06 nov 1994 08:49:37 gmt',
  ' Sun, 06 Nov 1994 08:49:37 GMT',
  'Sun, 06 Nov 1994 24:00:00 GMT',
  'Sun, 06 Nov 1994 08:60:37 GMT',
  'Sun, 06 Nov 1994 08:49:61 GMT',
  'Sun, 00 Nov 1994 08:49:37 GMT',
  'Sun, 31 Nov 1994 08:49:37 GMT',
  'Wed, 29 Feb 2023 00:00:00 GMT',
  'Thu, 29 Feb 1900 00:00:00 GMT',
  'Sun, 06 Nov 0094 08:49:37 GMT',
  'Sun, 06 Foo 1994 08:49:37 GMT',
  '1994-11-06T08:49:37Z'
])('no date: %j', (text) => expect(parseHttpDate(text)).toBeUndefined())

test('a field sent twice is no date', () => {
  expect(parseHttpDate(['Sun, 06 Nov 1994 08:49:37 GMT', 'Sun, 06 Nov 1994 08:49:37 GMT'])).toBeUndefined()
})
