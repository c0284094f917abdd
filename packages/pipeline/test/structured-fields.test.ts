import { expect, test } from 'vitest'
import { Decimal, DisplayString, type Member, parseDictionary, SfDate, Token } from '../src/structured-fields.ts'

/** Members as plain values; parameters in a second place where there are any. */
function read(text: string): unknown {
  const members = parseDictionary(text)
  if (members === undefined) return undefined
  const plain = ({ value, parameters }: Member): unknown => {
    const bare = Array.isArray(value) ? value.map(plain) : value instanceof Uint8Array ? `bytes ${Buffer.from(value).toString()}` : value
    return parameters.size === 0 ? bare : [bare, Object.fromEntries(parameters)]
  }
  return Object.fromEntries([...members].map(([key, member]) => [key, plain(member)]))
}

test.each<[string, unknown]>([
  ['', {}],
  ['   ', {}],
  ['a', { a: true }],
  ['a=1, b=-2,c=0', { a: 1, b: -2, c: 0 }],
  ['  a=1 ,\tb=2  ', { a: 1, b: 2 }],
  ['a=1.5, b=-0.125', { a: new Decimal(1.5), b: new Decimal(-0.125) }],
  ['a=999999999999999', { a: 999_999_999_999_999 }],
  ['a="x \\"y\\" \\\\"', { a: 'x "y" \\' }],
  ['a=tok/en:1, b=*x', { a: new Token('tok/en:1'), b: new Token('*x') }],
  ['a=?0, b=?1', { a: false, b: true }],
  ['a=:aGk=:, b=::', { a: 'bytes hi', b: 'bytes ' }],
  ['a=@1659578233', { a: new SfDate(1_659_578_233) }],
  ['a=%"f%c3%bc"', { a: new DisplayString('fü') }],
  ['a=(1 "b" c), b=()', { a: [1, 'b', new Token('c')], b: [] }],
  ['a=(1;x 2);y=1', { a: [[[1, { x: true }], 2], { y: 1 }] }],
  ['a;x;y=2, b=3; z="q"', { a: [true, { x: true, y: 2 }], b: [3, { z: 'q' }] }],
  // The last one counts.
  ['a=1, b=2, a=3', { a: 3, b: 2 }],
  ['*a-_.9=1', { '*a-_.9': 1 }]
])('%j is a dictionary', (text, expected) => expect(read(text)).toEqual(expected))

test.each([
  'A=1',
  'a=',
  'a=1,',
  ',a=1',
  'a=1,,b',
  'a=1 b=2',
  'a =1',
  'a= 1',
  '=1',
  '1=a',
  'a=1.',
  'a=.5',
  'a=1.2345',
  'a=1234567890123456',
  'a=1234567890123.1',
  'a=--1',
  'a=-',
  'a="x',
  'a="\\x"',
  'a="\x7f"',
  "a='x'",
  'a=?2',
  'a=?',
  'a=:a*b:',
  'a=:aGk=',
  'a=@1.5',
  'a=@',
  'a=%"%C3%BC"',
  'a=%"%ff"',
  'a=%x',
  'a=(1',
  'a=(1,2)',
  'a=(1"b")',
  'a;X=1',
  'a;=1',
  'ü=1',
  '\ta=1'
])('%j is none', (text) => expect(parseDictionary(text)).toBeUndefined())

test.each([
  ['spaces', ' '.repeat(200_000)],
  ['spaces between', `a=1${' '.repeat(200_000)}x`],
  ['digits', `a=${'1'.repeat(200_000)}`],
  ['an open string', `a="${'\\"'.repeat(100_000)}`],
  ['an open list', `a=(${'1 '.repeat(100_000)}`],
  ['members', 'a=1,'.repeat(50_000)]
])('a huge field is read in linear time: %s', (_, text) => {
  const start = performance.now()
  parseDictionary(text)
  expect(performance.now() - start).toBeLessThan(1000)
})
