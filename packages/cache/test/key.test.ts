import { createRequest } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { requestUrl, variantKey, varyFields } from '../src/key.ts'
import { KeyRules } from '../src/key-rules.ts'
import { headers } from './support.ts'

const plain = new KeyRules('n')

test('the key holds everything that selects what the origin is asked for', () => {
  const base = { scheme: 'http', authority: 'a.example', target: '/x?y=1' } as const
  const key = (changes: object = {}, namespace = 'n'): string => new KeyRules(namespace).key(createRequest({ ...base, ...changes }))
  expect(key()).toBe('n|http://a.example/x?y=1')
  expect(requestUrl(createRequest(base))).toBe('http://a.example/x?y=1')
  const others = [key({ scheme: 'https' }), key({ authority: 'b.example' }), key({ target: '/x?y=2' }), key({ target: '/X?y=1' }), key({ target: '/x%3Fy=1' }), key({}, 'm')]
  expect(new Set([key(), ...others]).size).toBe(others.length + 1)
  expect(key({ method: 'HEAD' })).toBe(key())
})

test.each([
  [undefined, []],
  ['', []],
  ['Accept-Encoding', ['accept-encoding']],
  [' b , A,,a , B', ['a', 'b']],
  [
    ['b', 'a, c'],
    ['a', 'b', 'c']
  ],
  ['*', ['*']]
])('fields of Vary %j', (vary, expected) => expect(varyFields(vary)).toEqual(expected))

describe('variantKey', () => {
  const key = (fields: Record<string, string | string[]>, names = ['accept', 'x-lang'], generation = 'g'): string => variantKey('base', { fields: names, generation }, headers(fields), plain)

  test.each([
    ['more space', { accept: 'a,b' }, { accept: '  a \t ,   b ' }],
    ['several lines', { accept: 'a, b' }, { accept: ['a', 'b'] }],
    ['fields that are not selected by', { accept: 'a' }, { accept: 'a', cookie: 'x' }],
    ['inner space', { accept: 'a  b' }, { accept: 'a b' }]
  ])('does not tell apart: %s', (_, one, other) => expect(key(one)).toBe(key(other)))

  test.each([
    ['values', { accept: 'a' }, { accept: 'b' }],
    ['case of values', { accept: 'a' }, { accept: 'A' }],
    ['absent and empty', {}, { accept: '' }],
    ['absent and a dash', {}, { accept: '-' }],
    ['which field it is', { accept: 'a' }, { 'x-lang': 'a' }],
    ['long values', { accept: 'a'.repeat(500) }, { accept: `${'a'.repeat(499)}b` }],
    ['space and none', { accept: 'a b' }, { accept: 'ab' }]
  ])('tells apart: %s', (_, one, other) => expect(key(one)).not.toBe(key(other)))

  test('tells generations and bases apart', () => {
    expect(key({ accept: 'a' }, ['accept'], 'g1')).not.toBe(key({ accept: 'a' }, ['accept'], 'g2'))
    expect(variantKey('b1', { fields: [], generation: 'g' }, headers(), plain)).not.toBe(variantKey('b2', { fields: [], generation: 'g' }, headers(), plain))
  })

  test('stays short, whatever the client sends', () => {
    expect(key({ accept: 'x'.repeat(100_000) }).length).toBeLessThan(100)
  })

  // `\s*,\s*` tried every stretch of a long run of spaces: a client could buy seconds of work with one Accept header.
  test.each([`a${' '.repeat(200_000)}b`, `${' ,'.repeat(100_000)}`, ' '.repeat(200_000)])('normalises a huge value in linear time', (accept) => {
    const start = performance.now()
    key({ accept })
    expect(performance.now() - start).toBeLessThan(1000)
  })
})
