import { describe, expect, it } from 'vitest'
import type { Lease } from '../src/index.ts'
import { balancerOf, names, seeded, take } from './helpers.ts'

const active = (leases: readonly { active: number }[]) => leases.map((target) => target.active)

describe('least connections', () => {
  it('never lets one of equal targets hold more than one lease more than another', () => {
    const balancer = balancerOf({ a: 1, b: 1, c: 1, d: 1 }, { strategy: 'least-connections' })
    for (let i = 0; i < 1000; i++) {
      take(balancer)
      const counts = active(balancer.targets)
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
    }
  })

  it('picks a least loaded target whatever was released, by weight', () => {
    const random = seeded(11)
    for (const weights of [
      { a: 1, b: 1, c: 1 },
      { a: 5, b: 2, c: 1 }
    ]) {
      const balancer = balancerOf(weights, { strategy: 'least-connections' })
      const held: Lease[] = []
      for (let i = 0; i < 3000; i++) {
        if (held.length > 0 && random() < 0.48) held.splice(Math.floor(random() * held.length), 1)[0]?.release('success')
        else {
          const least = Math.min(...balancer.targets.map((target) => target.active / target.weight))
          const lease = take(balancer)
          expect((lease.target.active - 1) / lease.target.weight).toBe(least)
          held.push(lease)
        }
      }
    }
  })

  it('shares held leases in proportion to weight', () => {
    const balancer = balancerOf({ a: 3, b: 1 }, { strategy: 'least-connections' })
    for (let i = 0; i < 400; i++) take(balancer)
    expect(active(balancer.targets)).toEqual([300, 100])
  })

  it('shares requests that never overlap by weight, smoothly: an idle light target does not starve', () => {
    expect(names(balancerOf({ a: 5, b: 1, c: 1 }, { strategy: 'least-connections' }), 14).join('')).toBe('aabacaa'.repeat(2))
  })

  it('goes around a target that is slow to release', () => {
    const balancer = balancerOf({ a: 1, b: 1, c: 1 }, { strategy: 'least-connections' })
    const slow = take(balancer)
    expect(slow.target.name).toBe('a')
    expect(new Set(names(balancer, 20))).toEqual(new Set(['b', 'c']))
    slow.release('success')
    expect(names(balancer, 20)).toContain('a')
  })
})
