import { expect, test } from 'vitest'
import { Recent } from '../src/recent.ts'

test('holds at least half of what it may and never more, the latest', () => {
  const recent = new Recent<number>(4)
  const kept = (): string[] => ['a', 'b', 'c', 'd', 'e', 'f'].filter((key) => recent.get(key) !== undefined)
  for (const [i, key] of ['a', 'b', 'c', 'd'].entries()) recent.set(key, i)
  expect(kept()).toEqual(['a', 'b', 'c', 'd'])
  recent.set('e', 4)
  expect(kept()).toEqual(['c', 'd', 'e'])
  recent.set('c', 6)
  expect(recent.get('c')).toBe(6)
  recent.set('f', 5)
  expect(kept()).toEqual(['c', 'e', 'f'])
})

test('setting a key again takes no room', () => {
  const recent = new Recent<number>(2)
  recent.set('a', 1)
  for (let i = 0; i < 5; i++) recent.set('b', i)
  expect([recent.get('a'), recent.get('b')]).toEqual([1, 4])
})

// Keys that were dropped one by one from the front of a single map left gaps: with 10 000 of them each request for a new URL took 7 us longer.
test('adding to a full one costs no more than filling it', () => {
  const time = (recent: Recent<number>, from: number): number => {
    const start = process.cpuUsage().user
    for (let i = from; i < from + 200_000; i++) recent.set(`key-${i}`, i)
    return process.cpuUsage().user - start
  }
  const roomy = new Recent<number>(1_000_000)
  const full = new Recent<number>(10_000)
  time(full, 0)
  const [empty, replacing] = [time(roomy, 0), time(full, 200_000)]
  expect(replacing).toBeLessThan(6 * empty)
})

test('long keys are told apart, and take no more memory than short ones', () => {
  const recent = new Recent<number>(10)
  const long = 'x'.repeat(100_000)
  recent.set(`${long}1`, 1)
  recent.set(`${long}2`, 2)
  expect([recent.get(`${long}1`), recent.get(`${long}2`), recent.get(long)]).toEqual([1, 2, undefined])
  recent.delete(`${long}1`)
  expect(recent.get(`${long}1`)).toBeUndefined()
  const keys = (recent as unknown as { newer: Map<string, number> }).newer.keys()
  for (const key of keys) expect(key.length).toBeLessThan(100)
})
