import { describe, expect, test } from 'vitest'
import { appendHeader, combined, createHeaders, headersFromRaw, headersToRaw, single } from '../src/headers.ts'

describe('header maps', () => {
  test('have no prototype: no name is special', () => {
    const headers = createHeaders()
    const magic: string = '__proto__'
    expect([headers.constructor, headers[magic], headers.toString, 'hasOwnProperty' in headers]).toEqual([undefined, undefined, undefined, false])
    headers[magic] = 'x'
    expect([Object.keys(headers), headers[magic]]).toEqual([[magic], 'x'])
    expect(createHeaders()[magic]).toBeUndefined()
  })

  test('copy what they are made from, and leave it alone', () => {
    const from = headersFromRaw(['A', '1', 'B', '2', 'b', '3'])
    const copy = createHeaders(from)
    copy.a = '9'
    appendHeader(copy, 'b', '4')
    expect([from.a, from.b, copy.a, copy.b]).toEqual(['1', ['2', '3'], '9', ['2', '3', '4']])
  })

  test('keep every line, in order, in both directions', () => {
    const raw = ['Set-Cookie', 'a', 'Age', '1', 'set-cookie', 'b', 'AGE', '2', 'SET-COOKIE', 'c', 'Empty', '']
    const headers = headersFromRaw(raw)
    expect(Object.entries(headers)).toEqual([
      ['set-cookie', ['a', 'b', 'c']],
      ['age', ['1', '2']],
      ['empty', '']
    ])
    headers.gone = undefined
    expect(headersToRaw(headers)).toEqual(['set-cookie', 'a', 'set-cookie', 'b', 'set-cookie', 'c', 'age', '1', 'age', '2', 'empty', ''])
  })

  test('read as lists and as single values', () => {
    expect([combined(undefined), combined('a'), combined(['a', 'b, c'])]).toEqual([undefined, 'a', 'a, b, c'])
    expect([single(undefined), single('a'), single(['a']), single(['a', 'b'])]).toEqual([undefined, 'a', 'a', undefined])
  })
})
