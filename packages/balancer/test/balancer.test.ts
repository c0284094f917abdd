import type { Clock } from '@proxy/pipeline'
import { describe, expect, it } from 'vitest'
import { type Balancer, createBalancer, type Strategy, type StrategyName } from '../src/index.ts'
import { balancerOf, failTimes, names, seeded, take, takeNamed, weighted } from './helpers.ts'

describe('pick', () => {
  it('gives undefined without targets, and is not degraded then', () => {
    const balancer = createBalancer({ targets: [] })
    expect(balancer.pick()).toBeUndefined()
    expect(balancer.degraded).toBe(false)
  })

  it.each<StrategyName>(['round-robin', 'random', 'least-connections'])('leaves out what is excluded, until nothing is left: %s', (strategy) => {
    const balancer = balancerOf({ a: 1, b: 5, c: 2 }, { strategy, random: seeded(5) })
    for (let i = 0; i < 100; i++) {
      const tried = new Set<Balancer['targets'][number]>()
      for (let n = 0; n < 3; n++) {
        const lease = balancer.pick({ exclude: tried })
        expect(tried.has(lease?.target as Balancer['targets'][number])).toBe(false)
        tried.add(lease?.target as Balancer['targets'][number])
        lease?.release('success')
      }
      expect(balancer.pick({ exclude: tried })).toBeUndefined()
    }
  })

  it('refuses a strategy that is none', () => {
    expect(() => balancerOf({ a: 1 }, { strategy: 'roundrobin' as StrategyName })).toThrow(/"roundrobin" is no balancing strategy/)
  })

  it('does not read the clock while nothing is ejected', () => {
    let reads = 0
    const clock: Clock = { wallMs: () => 0, monotonicMs: () => reads++ }
    const balancer = balancerOf({ a: 1, b: 1 }, { clock })
    names(balancer, 100)
    failTimes(balancer, 'a', 2)
    expect(reads).toBe(0)
  })

  it('never starves a target, whatever fails: each is used again within the fail timeout', () => {
    const random = seeded(21)
    for (const strategy of ['round-robin', 'random', 'least-connections'] as const) {
      let nowMs = 0
      const balancer = balancerOf({ a: 3, b: 1, c: 1 }, { strategy, random, clock: { wallMs: () => 0, monotonicMs: () => nowMs } })
      const lastUseMs: Record<string, number> = { a: 0, b: 0, c: 0 }
      for (let i = 0; i < 20_000; i++) {
        nowMs += 10
        const lease = take(balancer)
        lastUseMs[lease.target.name] = nowMs
        lease.release(random() < 0.4 ? 'failure' : 'success')
        for (const name of ['a', 'b', 'c']) expect(nowMs - (lastUseMs[name] as number)).toBeLessThan(12_000)
      }
    }
  })
})

describe('lease', () => {
  it('counts while it is held, and its outcome once', () => {
    const balancer = balancerOf({ a: 1 })
    const [target] = balancer.targets
    const leases = [take(balancer), take(balancer), take(balancer)]
    expect(target).toMatchObject({ active: 3, picks: 3 })
    leases[0]?.release('success')
    leases[0]?.release('failure')
    leases[0]?.release('aborted')
    expect(target).toMatchObject({ active: 2, successes: 1, failures: 0, aborts: 0 })
    leases[1]?.release('failure')
    leases[2]?.release('aborted')
    expect(target).toMatchObject({ active: 0, picks: 3, successes: 1, failures: 1, aborts: 1 })
  })
})

describe('onStateChange', () => {
  it('tells every listener until it is stopped', () => {
    const balancer = balancerOf({ a: 1, b: 1 }, { passiveHealth: { maxFails: 1 } })
    const [first, second]: string[][] = [[], []]
    const stop = balancer.onStateChange((change) => first?.push(change.target.name))
    balancer.onStateChange((change) => second?.push(change.target.name))
    failTimes(balancer, 'a', 1)
    stop()
    failTimes(balancer, 'b', 1)
    expect([first, second]).toEqual([['a'], ['a', 'b']])
  })

  it('is called when the balancer already acts on the change', () => {
    const balancer = balancerOf({ a: 1, b: 1 }, { passiveHealth: { maxFails: 1 } })
    let picked: string[] = []
    balancer.onStateChange(() => {
      picked = names(balancer, 4)
    })
    failTimes(balancer, 'a', 1)
    expect(picked).toEqual(['b', 'b', 'b', 'b'])
  })
})

describe('a strategy of your own', () => {
  it('gets the usable targets in their order and decides', () => {
    const seen: string[] = []
    const last: Strategy = {
      name: 'last',
      pick(candidates) {
        seen.push(candidates.map((target) => target.name).join(''))
        return candidates.at(-1) as (typeof candidates)[number]
      }
    }
    const balancer = createBalancer({ targets: weighted({ a: 1, b: 1, c: 1 }), strategy: last, passiveHealth: { maxFails: 1 } })
    takeNamed(balancer, 'c').release('failure')
    expect(take(balancer).target.name).toBe('b')
    expect(balancer.pick({ exclude: new Set([balancer.targets[1] as (typeof balancer.targets)[number]]) })?.target.name).toBe('a')
    expect(seen).toEqual(['abc', 'ab', 'a'])
    expect(balancer.strategy).toBe(last)
  })
})
