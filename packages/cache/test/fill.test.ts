import { expect, test } from 'vitest'
import { type FillOutcome, Fills } from '../src/fill.ts'

// The tables that the Set of running fills had left behind, each linked to the next, kept answers alive until a full collection: half of all
// that was allocated survived, and collecting garbage took 18 us of each request instead of 2.
test('a fill that has ended holds on to nothing', () => {
  const fills = new Fills()
  const fill = fills.open('base', 'key')
  const outcome = new Promise<FillOutcome>(() => {})
  fill.outcome = outcome
  expect(fills.find('key')?.outcome).toBe(outcome)
  fills.end(fill)
  expect([fills.size, fills.find('key'), fill.keys]).toEqual([0, undefined, []])
  expect(fill.outcome).not.toBe(outcome)
})
