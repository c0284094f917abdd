import { describe, expect, it } from 'vitest'
import { random } from '../src/index.ts'
import { balancerOf, failTimes, names, seeded } from './helpers.ts'

/** Pearson's chi-square of counts against weights. */
function chiSquare(picked: readonly string[], weights: Record<string, number>): number {
  const sum = Object.values(weights).reduce((total, weight) => total + weight, 0)
  let statistic = 0
  for (const [name, weight] of Object.entries(weights)) {
    const expected = (picked.length * weight) / sum
    statistic += (picked.filter((other) => other === name).length - expected) ** 2 / expected
  }
  return statistic
}

describe('random', () => {
  it('draws in proportion to weight', () => {
    const weights = { a: 1, b: 2, c: 3, d: 4 }
    for (const seed of [1, 2, 3, 4, 5]) {
      // 3 degrees of freedom: above 21.1 in one of 10 000 runs. The seeds make it the same in every run.
      expect(chiSquare(names(balancerOf(weights, { strategy: 'random', random: seeded(seed) }), 20_000), weights)).toBeLessThan(21.1)
    }
  })

  it('tells a wrong distribution from a right one (control)', () => {
    const picked = names(balancerOf({ a: 1, b: 1, c: 1, d: 1 }, { strategy: 'random', random: seeded(1) }), 20_000)
    expect(chiSquare(picked, { a: 1, b: 2, c: 3, d: 4 })).toBeGreaterThan(1000)
  })

  it('draws each time anew: equal neighbours come as often as chance has them', () => {
    const picked = names(balancerOf({ a: 1, b: 1 }, { strategy: 'random', random: seeded(9) }), 10_000)
    const repeats = picked.filter((name, i) => i > 0 && picked[i - 1] === name).length
    expect(repeats).toBeGreaterThan(4800)
    expect(repeats).toBeLessThan(5200)
  })

  it('maps the whole range of the generator onto the targets', () => {
    const targets = balancerOf({ a: 1, b: 2, c: 1 }).targets
    const draws = [0, 0.2499, 0.25, 0.7499, 0.75, 1 - Number.EPSILON]
    expect(draws.map((value) => random(() => value).pick(targets).name).join('')).toBe('aabbcc')
  })

  it('uses Math.random when no generator is given', () => {
    expect(new Set(names(balancerOf({ a: 1, b: 1, c: 1 }, { strategy: 'random' }), 1000))).toEqual(new Set(['a', 'b', 'c']))
  })

  it('leaves out what is ejected', () => {
    const balancer = balancerOf({ a: 1, b: 1 }, { strategy: 'random', random: seeded(3), passiveHealth: { maxFails: 1 } })
    failTimes(balancer, 'a', 1)
    expect(new Set(names(balancer, 200))).toEqual(new Set(['b']))
  })
})
