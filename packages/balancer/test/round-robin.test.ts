import { describe, expect, it } from 'vitest'
import { roundRobin } from '../src/index.ts'
import { balancerOf, failTimes, names, seeded } from './helpers.ts'

describe('round robin', () => {
  it('takes turns in the order of configuration', () => {
    expect(names(balancerOf({ a: 1, b: 1, c: 1 }), 7).join('')).toBe('abcabca')
  })

  it('is smooth: weights 5, 1, 1 give a a b a c a a, over and over', () => {
    expect(names(balancerOf({ a: 5, b: 1, c: 1 }), 21).join('')).toBe('aabacaa'.repeat(3))
  })

  it('is the default strategy', () => {
    expect(balancerOf({ a: 1 }).strategy.name).toBe('round-robin')
  })

  it('gives each target exactly its weight in each cycle, whatever the weights', () => {
    const random = seeded(7)
    for (let round = 0; round < 50; round++) {
      const weights = Object.fromEntries(Array.from({ length: 1 + Math.floor(random() * 8) }, (_, i) => [`t${i}`, 1 + Math.floor(random() * 20)]))
      const cycle = Object.values(weights).reduce((sum, weight) => sum + weight, 0)
      const balancer = balancerOf(weights)
      for (let i = 0; i < 3; i++) {
        const picked = names(balancer, cycle)
        for (const [name, weight] of Object.entries(weights)) expect(picked.filter((other) => other === name)).toHaveLength(weight)
      }
    }
  })

  it('is never further from the exact share than one turn per other target, so nobody starves', () => {
    const weights = { a: 20, b: 7, c: 3, d: 1 }
    const balancer = balancerOf(weights)
    const counts: Record<string, number> = { a: 0, b: 0, c: 0, d: 0 }
    names(balancer, 310).forEach((name, i) => {
      counts[name] = (counts[name] as number) + 1
      for (const [other, weight] of Object.entries(weights)) expect(Math.abs((counts[other] as number) - ((i + 1) * weight) / 31)).toBeLessThan(3)
    })
  })

  it('divides by fractional weights too', () => {
    const picked = names(balancerOf({ a: 0.5, b: 0.25, c: 0.25 }), 400)
    expect(picked.filter((name) => name === 'a')).toHaveLength(200)
  })

  it('keeps the proportion of the others while one is ejected', () => {
    const balancer = balancerOf({ a: 4, b: 2, c: 1 }, { passiveHealth: { maxFails: 1 } })
    failTimes(balancer, 'a', 1)
    const picked = names(balancer, 30)
    expect(picked.filter((name) => name === 'b')).toHaveLength(20)
    expect(picked.filter((name) => name === 'c')).toHaveLength(10)
  })

  it('keeps its own state in each instance', () => {
    const targets = balancerOf({ a: 1, b: 1 }).targets
    const [first, second] = [roundRobin(), roundRobin()]
    expect([first.pick(targets).name, second.pick(targets).name, first.pick(targets).name]).toEqual(['a', 'a', 'b'])
  })
})
