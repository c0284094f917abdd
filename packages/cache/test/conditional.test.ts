import { describe, expect, test } from 'vitest'
import { addValidators, confirms, hasValidator, ifRangeHolds, notModified, removeConditions, removeContentFields, updateFields } from '../src/conditional.ts'
import { headers } from './support.ts'

const monday = 'Mon, 05 Feb 2024 10:00:00 GMT'
const tuesday = 'Tue, 06 Feb 2024 10:00:00 GMT'
const wednesday = 'Wed, 07 Feb 2024 10:00:00 GMT'

type Fields = Record<string, string | string[]>

describe('notModified', () => {
  const cases: [string, Fields, Fields, boolean][] = [
    ['no condition', {}, { etag: '"a"' }, false],
    ['same tag', { 'if-none-match': '"a"' }, { etag: '"a"' }, true],
    ['another tag', { 'if-none-match': '"b"' }, { etag: '"a"' }, false],
    ['no tag stored', { 'if-none-match': '"a"' }, {}, false],
    ['weak against strong', { 'if-none-match': 'W/"a"' }, { etag: '"a"' }, true],
    ['strong against weak', { 'if-none-match': '"a"' }, { etag: 'W/"a"' }, true],
    ['weak against weak', { 'if-none-match': 'W/"a"' }, { etag: 'W/"a"' }, true],
    ['in a list', { 'if-none-match': '"x", W/"a","y"' }, { etag: '"a"' }, true],
    ['in several lines', { 'if-none-match': ['"x"', '"a"'] }, { etag: '"a"' }, true],
    ['not in a list', { 'if-none-match': '"x", "y"' }, { etag: '"a"' }, false],
    ['a comma inside a tag', { 'if-none-match': '"x,a", "y"' }, { etag: '"x,a"' }, true],
    ['part of a tag', { 'if-none-match': '"xa"' }, { etag: '"a"' }, false],
    ['what lies between two tags', { 'if-none-match': '"x", "y"' }, { etag: '", "' }, false],
    ['a star', { 'if-none-match': '*' }, {}, true],
    ['a star in a list is nothing', { 'if-none-match': '"x", *' }, { etag: '"a"' }, false],
    ['a tag without quotes, letter by letter', { 'if-none-match': 'a' }, { etag: 'a' }, true],
    ['since then', { 'if-modified-since': tuesday }, { 'last-modified': tuesday }, true],
    ['since later', { 'if-modified-since': wednesday }, { 'last-modified': tuesday }, true],
    ['since before', { 'if-modified-since': monday }, { 'last-modified': tuesday }, false],
    ['since no date', { 'if-modified-since': 'soon' }, { 'last-modified': tuesday }, false],
    ['since, twice', { 'if-modified-since': [tuesday, tuesday] }, { 'last-modified': tuesday }, false],
    ['Date stands in for Last-Modified', { 'if-modified-since': wednesday }, { date: tuesday }, true],
    ['Date later than that', { 'if-modified-since': monday }, { date: tuesday }, false],
    ['a Last-Modified that is no date is no reason to look at Date', { 'if-modified-since': wednesday }, { 'last-modified': 'x', date: tuesday }, false],
    ['If-None-Match is the only one that counts (1)', { 'if-none-match': '"b"', 'if-modified-since': wednesday }, { etag: '"a"', 'last-modified': tuesday }, false],
    ['If-None-Match is the only one that counts (2)', { 'if-none-match': '"a"', 'if-modified-since': monday }, { etag: '"a"', 'last-modified': tuesday }, true]
  ]
  test.each(cases)('%s', (_, request, stored, expected) => expect(notModified(headers(request), headers(stored))).toBe(expected))

  test('a huge list takes linear time', () => {
    const start = performance.now()
    notModified(headers({ 'if-none-match': '"'.repeat(200_001) }), headers({ etag: '"a"' }))
    expect(performance.now() - start).toBeLessThan(1000)
  })
})

describe('ifRangeHolds', () => {
  const cases: [string, Fields, Fields, boolean][] = [
    ['absent', {}, {}, true],
    ['same strong tag', { 'if-range': '"a"' }, { etag: '"a"' }, true],
    ['another tag', { 'if-range': '"b"' }, { etag: '"a"' }, false],
    ['a weak tag never', { 'if-range': 'W/"a"' }, { etag: 'W/"a"' }, false],
    ['strong against weak', { 'if-range': '"a"' }, { etag: 'W/"a"' }, false],
    ['the very date', { 'if-range': monday }, { 'last-modified': monday, date: tuesday }, true],
    ['a later date', { 'if-range': tuesday }, { 'last-modified': monday, date: wednesday }, false],
    ['an earlier date', { 'if-range': monday }, { 'last-modified': tuesday, date: wednesday }, false],
    ['a date that was not a second old', { 'if-range': monday }, { 'last-modified': monday, date: monday }, false],
    ['a date without a Date to judge it by', { 'if-range': monday }, { 'last-modified': monday }, false],
    ['neither tag nor date', { 'if-range': 'a' }, { etag: 'a' }, false]
  ]
  test.each(cases)('%s', (_, request, stored, expected) => expect(ifRangeHolds(headers(request), headers(stored))).toBe(expected))
})

test('a 304 says nothing of content that is not sent', () => {
  const map = headers({ 'content-type': 'a/b', 'content-length': '5', 'content-encoding': 'gzip', 'content-location': '/x', etag: '"a"', age: '3' })
  removeContentFields(map)
  expect({ ...map }).toEqual({ 'content-location': '/x', etag: '"a"', age: '3' })
})

test('the request that fills the cache carries the validators stored, and no condition of its client', () => {
  const map = headers({
    'if-none-match': '"x"',
    'if-modified-since': monday,
    'if-match': '"x"',
    'if-unmodified-since': monday,
    'if-range': '"x"',
    range: 'bytes=0-1',
    accept: '*/*'
  })
  removeConditions(map)
  expect({ ...map }).toEqual({ accept: '*/*' })
  addValidators(map, headers({ etag: 'W/"a"', 'last-modified': tuesday }))
  expect({ ...map }).toEqual({ accept: '*/*', 'if-none-match': 'W/"a"', 'if-modified-since': tuesday })
  expect(hasValidator(headers({ etag: '"a"' }))).toBe(true)
  expect(hasValidator(headers({ 'last-modified': monday }))).toBe(true)
  expect(hasValidator(headers({ date: monday }))).toBe(false)
})

test('a 304 with another entity tag does not confirm what is stored', () => {
  expect(confirms(headers({ etag: '"b"' }), headers({ etag: '"a"' }))).toBe(false)
  expect(confirms(headers({ etag: 'W/"a"' }), headers({ etag: '"a"' }))).toBe(true)
  expect(confirms(headers(), headers({ etag: '"a"' }))).toBe(true)
  expect(confirms(headers({ etag: '"a"' }), headers({ 'last-modified': monday }))).toBe(true)
})

test('a 304 renews stored fields, except those that describe the message', () => {
  const stored = headers({ etag: '"a"', 'content-type': 'text/plain', 'x-old': '1', 'cache-control': 'max-age=1', vary: 'accept' })
  const from304 = {
    etag: '"a"',
    'cache-control': 'max-age=9',
    'x-new': '2',
    'content-type': 'a/b',
    'content-length': '0',
    'content-encoding': 'br',
    'set-cookie': 'a=1',
    age: '4',
    vary: '*',
    trailer: 'x',
    'cache-status': 'up; hit'
  }
  updateFields(stored, headers(from304), false)
  expect({ ...stored }).toEqual({ etag: '"a"', 'content-type': 'a/b', 'x-old': '1', 'cache-control': 'max-age=9', vary: 'accept', 'x-new': '2' })
  updateFields(stored, headers(from304), true)
  expect(stored['set-cookie']).toBe('a=1')
})
