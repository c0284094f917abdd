import { describe, expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { Prepared } from '../src/prepared.ts'
import type { StoredMeta } from '../src/store.ts'
import { headers, standardPolicy } from './support.ts'

const stored = (changes: Partial<StoredMeta> = {}): StoredMeta => ({ ...sampleMeta({ headers: headers({ 'cache-control': 'max-age=60', etag: '"a"' }), initialAgeMs: 0 }), length: 12, ...changes })

const edge = { name: 'edge', freshness: { ...standardPolicy, targets: [], heuristic: undefined } }

test('fields of a hit: those stored, Content-Length, Age and Cache-Status', () => {
  expect({ ...new Prepared(stored(), edge).headers(2999) }).toEqual({ 'cache-control': 'max-age=60', etag: '"a"', 'content-length': '12', age: '2', 'cache-status': 'edge; hit; ttl=58' })
})

test('Age and ttl change once a second, and their text is made once a second', () => {
  const prepared = new Prepared(stored(), edge)
  const at = (ageMs: number): unknown[] => {
    const map = prepared.headers(ageMs)
    return [map.age, map['cache-status']]
  }
  expect(at(0)).toEqual(['0', 'edge; hit; ttl=60'])
  expect(at(999)).toEqual(['0', 'edge; hit; ttl=60'])
  expect(at(1000)).toEqual(['1', 'edge; hit; ttl=59'])
  expect(at(59_999)).toEqual(['59', 'edge; hit; ttl=1'])
  // Back again: another request may have been counted before.
  expect(at(500)).toEqual(['0', 'edge; hit; ttl=60'])
})

test('every answer has a map of its own', () => {
  const prepared = new Prepared(stored(), edge)
  const map = prepared.headers(0)
  map.etag = 'changed'
  delete map['cache-control']
  expect(prepared.headers(0).etag).toBe('"a"')
  expect(prepared.headers(0)['cache-control']).toBe('max-age=60')
})

test('204 has no Content-Length', () => {
  expect(new Prepared(stored({ status: 204, length: 0 }), edge).headers(0)['content-length']).toBeUndefined()
})

describe('remembered failures', () => {
  const retryAfter = (status: number, ageMs: number, field?: string): unknown =>
    new Prepared(stored({ status, headers: headers({ 'cache-control': 'max-age=60', ...(field === undefined ? {} : { 'retry-after': field }) }) }), edge).headers(ageMs)['retry-after']

  test('are marked, and say when it is worth asking again', () => {
    expect(new Prepared(stored({ status: 404 }), edge).headers(0)['cache-status']).toBe('edge; hit; ttl=60; detail=negative')
    expect(retryAfter(404, 0)).toBeUndefined()
    expect(retryAfter(503, 0)).toBe('60')
    expect(retryAfter(429, 10_000)).toBe('50')
    expect(retryAfter(500, 59_999)).toBe('1')
  })

  test('keep a longer wait that the origin asked for, and its date', () => {
    expect(retryAfter(503, 10_000, '120')).toBe('110')
    expect(retryAfter(503, 10_000, '5')).toBe('50')
    expect(retryAfter(503, 10_000, 'Fri, 31 Dec 2100 23:59:59 GMT')).toBe('Fri, 31 Dec 2100 23:59:59 GMT')
  })

  // A failure to connect, remembered for a second, was kept for the twenty minutes of a rule for 5xx answers.
  test('end when they were to end, whatever the rules say of their status', () => {
    const meta = stored({ status: 502, responseTime: 1000, keepUntil: 2000 })
    expect(new Prepared(meta, { ...edge, freshness: { ...edge.freshness, rules: [{ status: '5xx', ttlMs: 1_200_000 }] } }).lifetimeMs).toBe(1000)
  })
})
