import { expect, test } from 'vitest'
import { requestedRange } from '../src/range.ts'
import { headers } from './support.ts'

test.each([
  ['bytes=0-0', { start: 0, end: 0 }],
  ['bytes=0-', { start: 0, end: 9 }],
  ['bytes=3-5', { start: 3, end: 5 }],
  ['bytes=3-99', { start: 3, end: 9 }],
  ['bytes=9-9', { start: 9, end: 9 }],
  ['bytes=-1', { start: 9, end: 9 }],
  ['bytes=-10', { start: 0, end: 9 }],
  ['bytes=-99', { start: 0, end: 9 }],
  ['BYTES=3-5', { start: 3, end: 5 }],
  ['bytes= 3-5 ', { start: 3, end: 5 }],
  ['bytes=0-99999999999999999999999999', { start: 0, end: 9 }],
  ['bytes=-99999999999999999999999999', { start: 0, end: 9 }],
  ['bytes=10-', 'unsatisfiable'],
  ['bytes=10-11', 'unsatisfiable'],
  [`bytes=${'9'.repeat(400)}-`, 'unsatisfiable'],
  ['bytes=-0', 'unsatisfiable'],
  ['bytes=5-3', 'ignore'],
  // Apart by less than what a part's head takes.
  ['bytes=0-1,3-4', { start: 0, end: 4 }],
  ['bytes=3-4 , 0-1', { start: 0, end: 4 }],
  ['bytes=0-1,99-', { start: 0, end: 1 }],
  ['bytes=99-,-0', 'unsatisfiable'],
  ['bytes=0-1,', 'ignore'],
  ['bytes=0-1,x', 'ignore'],
  ['bytes=', 'ignore'],
  ['bytes=-', 'ignore'],
  ['bytes=a-b', 'ignore'],
  ['bytes=1', 'ignore'],
  ['bytes=+1-2', 'ignore'],
  ['bytes 0-1', 'ignore'],
  ['lines=0-1', 'ignore'],
  ['', 'ignore']
] as const)('%s of ten bytes', (range, expected) => {
  expect(requestedRange(headers({ range }), 10)).toEqual(expected)
})

test('no Range, and two of them', () => {
  expect(requestedRange(headers(), 10)).toBe('ignore')
  expect(requestedRange(headers({ range: ['bytes=0-1', 'bytes=2-3'] }), 10)).toBe('ignore')
})

test.each([
  [
    'bytes=900-,0-9,400-409',
    [
      { start: 900, end: 999 },
      { start: 0, end: 9 },
      { start: 400, end: 409 }
    ]
  ],
  // However often the same bytes are asked for, they are sent once.
  ['bytes=0-,0-,0-', { start: 0, end: 999 }],
  [
    'bytes=0-499,400-599,900-999',
    [
      { start: 0, end: 599 },
      { start: 900, end: 999 }
    ]
  ],
  [`bytes=${Array.from({ length: 33 }, (_, i) => `${i}-${i}`).join()}`, 'ignore']
] as const)('%s of a thousand', (range, expected) => {
  expect(requestedRange(headers({ range }), 1000)).toEqual(expected)
})

test.each(['bytes=0-', 'bytes=0-0', 'bytes=-1'])('%s of an empty body', (range) => {
  expect(requestedRange(headers({ range }), 0)).toBe('unsatisfiable')
})
