import { expect, test } from 'vitest'
import { normalised } from '../src/selecting-fields.ts'

test.each([
  ['accept-language', 'en, de', 'de, en'],
  ['accept-language', 'EN,de', 'en , De'],
  ['accept-language', 'de;q=0.5, en', 'en;q=1.0, de; q=0.500'],
  ['accept-language', 'de,,en,', 'de,en'],
  ['accept-language', 'en, en;q=0.1', 'en'],
  ['accept-encoding', 'gzip, deflate, br', 'BR,  gzip ,deflate'],
  ['accept-encoding', 'identity;q=0, gzip', 'gzip;q=1, identity;q=0.0'],
  ['accept', 'image/webp, */*;q=0.8, text/html', 'text/html, image/webp, */*; q=0.8'],
  ['x-any', 'a ,  b', 'a,b']
])('%s: %j means the same as %j', (name, a, b) => expect(normalised(name, a)).toBe(normalised(name, b)))

test.each([
  ['accept-language', 'en;q=0.5, de', 'de;q=0.5, en'],
  ['accept-language', 'en', 'en-gb'],
  ['accept-encoding', 'gzip', 'gzip;q=0'],
  ['accept-encoding', 'gzip;q=2', 'gzip'],
  ['accept', 'text/html;level=1', 'text/html'],
  ['accept', 'text/HTML', 'text/html'],
  // Quoted commas and semicolons are none.
  ['accept', 'a/b;x="1,2", c/d', 'c/d, a/b;x="1,2"'],
  ['x-any', 'a,b', 'b,a'],
  ['x-any', 'A', 'a']
])('%s: %j does not mean %j', (name, a, b) => expect(normalised(name, a)).not.toBe(normalised(name, b)))

test('a huge list is left as it is', () => {
  const start = performance.now()
  const list = Array.from({ length: 50_000 }, (_, i) => `l${i};q=0.${i % 10}`).join(',')
  expect(normalised('accept-language', list)).toBe(list)
  normalised('accept-language', ' '.repeat(200_000))
  normalised('accept-language', `en${';'.repeat(100_000)}`)
  expect(performance.now() - start).toBeLessThan(2000)
})
