import { expect, test } from 'vitest'
import { createFakeClock } from '../src/fake-clock.ts'

test('stands still until it is moved', () => {
  const clock = createFakeClock()
  expect([clock.wallMs(), clock.monotonicMs()]).toEqual([1_700_000_000_000, 0])
  clock.advance(250)
  expect([clock.wallMs(), clock.monotonicMs()]).toEqual([1_700_000_000_250, 250])
})

test('jumps the wall time alone, back too', () => {
  const clock = createFakeClock(1000)
  clock.advance(10)
  clock.jumpWall(-500)
  expect([clock.wallMs(), clock.monotonicMs()]).toEqual([510, 10])
})

test('refuses to go back', () => {
  const clock = createFakeClock()
  expect(() => clock.advance(-1)).toThrow(RangeError)
  expect(() => clock.advance(Number.NaN)).toThrow(RangeError)
  expect(clock.monotonicMs()).toBe(0)
})
