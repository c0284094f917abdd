import { createRequest } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { type KeyOptions, KeyRules, selectingValue } from '../src/key-rules.ts'
import { headers } from './support.ts'

const keyOf = (target: string, options: KeyOptions, authority = 'a.example'): string => new KeyRules('n', options).key(createRequest({ scheme: 'http', authority, target }))

describe('the query', () => {
  test.each<[KeyOptions['query'], string, string]>([
    [undefined, '/x?b=1&a=2', '/x?b=1&a=2'],
    ['all', '/x?', '/x?'],
    ['none', '/x?b=1&a=2', '/x'],
    ['none', '/x', '/x'],
    ['sorted', '/x?b=1&a=2', '/x?a=2&b=1'],
    ['sorted', '/x?b=1&a&&', '/x?a&b=1'],
    // Of one name, the order may matter to the origin.
    ['sorted', '/x?c=2&b=1&c=1', '/x?b=1&c=2&c=1'],
    [{ only: ['w', 'h'] }, '/x?utm=1&w=2&h=3', '/x?h=3&w=2'],
    [{ only: ['w'] }, '/x?utm=1', '/x'],
    [{ except: ['utm_*', 'fbclid'] }, '/x?utm_source=a&w=2&utm_=b&fbclid=c&utm=d', '/x?utm=d&w=2'],
    // An origin reads these as w: what is left out of the key by how it is written would be answered with another width.
    [{ only: ['w'] }, '/x?%77=2', '/x?%77=2'],
    [{ except: ['a b'] }, '/x?a+b=1&a%20b=2&c=3', '/x?c=3'],
    [{ except: ['%'] }, '/x?%=1&%zz=2', '/x?%zz=2'],
    [{ only: ['w'] }, '/x?W=2', '/x']
  ])('%j of %s', (query, target, expected) => expect(keyOf(target, query === undefined ? {} : { query })).toBe(`n|http://a.example${expected}`))
})

test('without hosts, all share what is stored; with them, none do', () => {
  expect(keyOf('/x?a=1', { host: false })).toBe(keyOf('/x?a=1', { host: false }, 'b.example'))
  expect(keyOf('/x', {})).not.toBe(keyOf('/x', {}, 'b.example'))
  // No client can ask for the host that stands for all of them: authorities have no asterisk.
  expect(keyOf('/x', { host: false })).toBe('n|http://*/x')
})

describe('fields and cookies', () => {
  test('are named once each, in order', () => {
    expect(new KeyRules('n', { headers: ['X-Device', 'accept', 'x-device'], cookies: ['Theme'] }).fields).toEqual(['accept', 'cookie:Theme', 'x-device'])
    expect(new KeyRules('n').fields).toEqual([])
  })

  test.each([
    ['theme=dark', 'dark'],
    ['a=1; theme=dark ;b=2', 'dark'],
    ['theme=', ''],
    ['theme=a=b', 'a=b'],
    ['xtheme=dark; Theme=x', undefined],
    // Nobody knows which one the origin takes.
    ['theme=dark; theme=light', 'dark, light']
  ])('cookie %j', (cookie, expected) => expect(selectingValue(headers({ cookie }), 'cookie:theme')).toBe(expected))

  test('a cookie is absent without the field, and a field is no cookie', () => {
    expect(selectingValue(headers(), 'cookie:a')).toBeUndefined()
    expect(selectingValue(headers({ cookie: 'a=1', a: '2' }), 'cookie:a')).toBe('1')
    expect(selectingValue(headers({ cookie: 'a=1', a: '2' }), 'a')).toBe('2')
  })

  test.each<KeyOptions>([{ headers: ['a b'] }, { headers: ['Host'] }, { headers: [''] }, { cookies: ['a;b'] }])('%j is refused', (options) =>
    expect(() => new KeyRules('n', options)).toThrow(TypeError)
  )
})
