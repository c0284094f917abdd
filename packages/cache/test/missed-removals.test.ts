import { createFakeClock } from '@proxy/testing'
import { expect, test } from 'vitest'
import { MissedRemovals } from '../src/missed-removals.ts'

const setup = (maxBytes = 1000) => {
  const clock = createFakeClock()
  return { clock, missed: new MissedRemovals(maxBytes, clock) }
}

test('a key is missed until what came after that has put something else there, or removed it', () => {
  const { missed } = setup()
  const before = missed.mark
  missed.add('k', false)
  // Begun before the removal: what it puts there is what should have been removed.
  missed.resolve('k', before)
  expect([missed.has('k'), missed.isOwing]).toEqual([true, true])
  missed.resolve('k', missed.mark)
  expect([missed.has('k'), missed.isOwing, missed.size]).toEqual([false, false, 0])
})

test('what is missed again is missed since then', () => {
  const { missed } = setup()
  missed.add('k', true)
  const first = missed.mark
  missed.add('k', false)
  missed.resolve('k', first)
  expect([missed.has('k'), missed.size, missed.isOwing]).toEqual([true, 1, true])
})

test('superseded keys are not owed, and are the first to go', () => {
  const { missed } = setup(500)
  missed.add('old', true)
  missed.add('newer', true)
  expect(missed.isOwing).toBe(false)
  for (const key of ['a', 'b', 'c']) missed.add(key, false)
  expect([missed.has('old'), missed.has('newer'), missed.has('a'), missed.outdatedUntil]).toEqual([false, true, true, Number.NEGATIVE_INFINITY])
  expect([...missed.owed()]).toEqual(['a', 'b', 'c'])
})

test('without room for one more, all that was asked for until now is outdated', () => {
  const { missed, clock } = setup(500)
  for (const key of ['a', 'b', 'c', 'd']) missed.add(key, false)
  expect(missed.outdatedUntil).toBe(Number.NEGATIVE_INFINITY)
  clock.advance(10)
  missed.add('e', false)
  expect([missed.outdatedUntil, missed.size]).toEqual([clock.wallMs(), 0])
  // And there is room again.
  for (const key of ['f', 'g']) missed.add(key, false)
  expect([missed.size, missed.outdatedUntil]).toEqual([2, clock.wallMs()])
})

test('a million of them take no more than they may', () => {
  const { missed } = setup(64 * 1024)
  for (let i = 0; i < 1_000_000; i++) {
    missed.add(`https://example.org/${i}`, i % 3 === 0)
    if (i % 5 === 0) missed.resolve(`https://example.org/${i}`, missed.mark)
  }
  expect(missed.size).toBeLessThan(700)
})
