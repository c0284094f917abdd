import { createFakeClock } from '@proxy/testing'
import { describe, expect, it } from 'vitest'
import type { Balancer, PassiveHealthOptions } from '../src/index.ts'
import { balancerOf, failTimes, names, take, takeNamed } from './helpers.ts'

function setUp(weights: Record<string, number> = { a: 1, b: 1 }, passiveHealth: PassiveHealthOptions | false = {}) {
  const clock = createFakeClock()
  const balancer = balancerOf(weights, { clock, passiveHealth })
  const changes: string[] = []
  balancer.onStateChange(({ target, from, to, reason, degraded }) => changes.push(`${target.name} ${from} > ${to} ${reason}${degraded ? ' degraded' : ''}`))
  return { clock, balancer, changes }
}

const statuses = (balancer: Balancer) => balancer.targets.map((target) => target.status).join(' ')

describe('ejection', () => {
  it('comes with the third failure in a row', () => {
    const { balancer, changes } = setUp()
    failTimes(balancer, 'a', 2)
    expect(statuses(balancer)).toBe('available available')
    failTimes(balancer, 'a', 1)
    expect(statuses(balancer)).toBe('ejected available')
    expect(new Set(names(balancer, 20))).toEqual(new Set(['b']))
    expect(changes).toEqual(['a available > ejected consecutive-failures'])
    expect(balancer.targets[0]).toMatchObject({ consecutiveFailures: 3, ejections: 1, failures: 3, heldUntilMs: 10_000 })
  })

  it('does not come while successes are in between, and aborted requests do not count at all', () => {
    const { balancer } = setUp()
    for (let i = 0; i < 10; i++) {
      failTimes(balancer, 'a', 2)
      takeNamed(balancer, 'a').release('aborted')
      expect(balancer.targets[0]?.consecutiveFailures).toBe(2)
      takeNamed(balancer, 'a').release('success')
      expect(balancer.targets[0]?.consecutiveFailures).toBe(0)
    }
    expect(statuses(balancer)).toBe('available available')
  })

  it('follows maxFails', () => {
    const { balancer } = setUp({ a: 1, b: 1 }, { maxFails: 1 })
    failTimes(balancer, 'a', 1)
    expect(statuses(balancer)).toBe('ejected available')
  })

  it('never comes when passive health is off', () => {
    const { balancer } = setUp({ a: 1, b: 1 }, false)
    failTimes(balancer, 'a', 50)
    expect(names(balancer, 4).join('')).toMatch(/^(abab|baba)$/)
    expect(balancer.targets[0]).toMatchObject({ status: 'available', failures: 50, consecutiveFailures: 0 })
  })

  it('is not prolonged, and not repeated after the return, by requests that were under way before it', () => {
    const { balancer, clock, changes } = setUp()
    const old = Array.from({ length: 20 }, () => takeNamed(balancer, 'a'))
    for (const lease of old.slice(0, 3)) lease.release('failure')
    clock.advance(5000)
    for (const lease of old.slice(3, 10)) lease.release('failure')
    expect(balancer.targets[0]?.heldUntilMs).toBe(10_000)
    clock.advance(5000)
    takeNamed(balancer, 'a').release('success')
    for (const lease of old.slice(10)) lease.release('failure')
    expect(statuses(balancer)).toBe('available available')
    expect(changes).toHaveLength(3)
  })

  it('is not ended by the late success of a request from before it', () => {
    const { balancer } = setUp()
    const download = takeNamed(balancer, 'a')
    failTimes(balancer, 'a', 3)
    download.release('success')
    expect(statuses(balancer)).toBe('ejected available')
  })

  it.each([0, 1.5, -1, Number.NaN])('refuses maxFails %s', (maxFails) => {
    expect(() => setUp({ a: 1 }, { maxFails })).toThrow(RangeError)
  })

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])('refuses failTimeoutMs %s', (failTimeoutMs) => {
    expect(() => setUp({ a: 1 }, { failTimeoutMs })).toThrow(RangeError)
  })
})

describe('trial', () => {
  it('is one request when the time is over, and its success brings the target back', () => {
    const { balancer, clock, changes } = setUp()
    failTimes(balancer, 'a', 3)
    clock.advance(9999)
    expect(new Set(names(balancer, 20))).toEqual(new Set(['b']))
    clock.advance(1)
    const trial = takeNamed(balancer, 'a')
    expect(trial.degraded).toBe(false)
    expect(statuses(balancer)).toBe('trial available')
    expect(new Set(names(balancer, 20))).toEqual(new Set(['b']))
    trial.release('success')
    expect(names(balancer, 20).filter((name) => name === 'a')).toHaveLength(10)
    expect(changes).toEqual(['a available > ejected consecutive-failures', 'a ejected > trial trial-started', 'a trial > available answered'])
  })

  it('is due by the monotonic clock: a jump of the wall clock changes nothing', () => {
    const { balancer, clock } = setUp()
    failTimes(balancer, 'a', 3)
    clock.jumpWall(86_400_000)
    expect(new Set(names(balancer, 20))).toEqual(new Set(['b']))
  })

  it('that fails ejects for the whole time again', () => {
    const { balancer, clock, changes } = setUp({ a: 1, b: 1 }, { failTimeoutMs: 500 })
    failTimes(balancer, 'a', 3)
    for (let i = 0; i < 3; i++) {
      clock.advance(500)
      takeNamed(balancer, 'a').release('failure')
      clock.advance(499)
      expect(new Set(names(balancer, 20))).toEqual(new Set(['b']))
      clock.advance(1)
    }
    expect(changes.slice(1, 3)).toEqual(['a ejected > trial trial-started', 'a trial > ejected trial-failed'])
    expect(balancer.targets[0]).toMatchObject({ ejections: 1, consecutiveFailures: 6 })
  })

  it('that is aborted leaves the next request to be the trial', () => {
    const { balancer, clock, changes } = setUp()
    failTimes(balancer, 'a', 3)
    clock.advance(10_000)
    takeNamed(balancer, 'a').release('aborted')
    expect(changes.at(-1)).toBe('a trial > ejected trial-aborted')
    takeNamed(balancer, 'a').release('success')
    expect(statuses(balancer)).toBe('available available')
  })

  it('that runs on, or is lost, is followed by the next after failTimeoutMs: it cannot keep the target out', () => {
    const { balancer, clock } = setUp()
    failTimes(balancer, 'a', 3)
    clock.advance(10_000)
    const endless = takeNamed(balancer, 'a')
    clock.advance(9999)
    expect(new Set(names(balancer, 20))).toEqual(new Set(['b']))
    clock.advance(1)
    const second = takeNamed(balancer, 'a')
    // The first is no longer the trial: its failure does not end the second one's.
    endless.release('failure')
    expect(statuses(balancer)).toBe('trial available')
    second.release('success')
    expect(statuses(balancer)).toBe('available available')
  })
})

describe('a trial that was overtaken', () => {
  it('by another request that brought the target back counts as any other', () => {
    const { balancer, clock } = setUp({ a: 1 })
    failTimes(balancer, 'a', 3)
    clock.advance(10_000)
    const trial = take(balancer)
    const guess = take(balancer)
    expect([trial.degraded, guess.degraded]).toEqual([false, true])
    guess.release('success')
    expect(statuses(balancer)).toBe('available')
    trial.release('failure')
    expect(balancer.targets[0]).toMatchObject({ status: 'available', consecutiveFailures: 1 })
  })
})

describe('trials of several targets', () => {
  it('are due each at its own time', () => {
    const { balancer, clock } = setUp({ a: 1, b: 1, c: 1 })
    failTimes(balancer, 'a', 3)
    clock.advance(5000)
    failTimes(balancer, 'b', 3)
    clock.advance(5000)
    takeNamed(balancer, 'a').release('success')
    expect(statuses(balancer)).toBe('available ejected available')
    clock.advance(5000)
    takeNamed(balancer, 'b').release('success')
    expect(statuses(balancer)).toBe('available available available')
  })
})

describe('fail open', () => {
  it('uses all targets when all are ejected, and says so', () => {
    const { balancer, changes } = setUp()
    expect(balancer.degraded).toBe(false)
    failTimes(balancer, 'a', 3)
    expect(balancer.degraded).toBe(false)
    failTimes(balancer, 'b', 3)
    expect(balancer.degraded).toBe(true)
    const leases = Array.from({ length: 10 }, () => take(balancer))
    expect(leases.every((lease) => lease.degraded)).toBe(true)
    expect(leases.filter((lease) => lease.target.name === 'a')).toHaveLength(5)
    expect(changes.at(-1)).toBe('b available > ejected consecutive-failures degraded')
  })

  it('brings back the first target that answers', () => {
    const { balancer, changes } = setUp()
    failTimes(balancer, 'a', 3)
    failTimes(balancer, 'b', 3)
    takeNamed(balancer, 'a').release('failure')
    takeNamed(balancer, 'b').release('success')
    expect(balancer.degraded).toBe(false)
    expect(statuses(balancer)).toBe('ejected available')
    expect(changes.at(-1)).toBe('b ejected > available answered')
    expect(new Set(names(balancer, 20))).toEqual(new Set(['b']))
  })

  it('does not push the trial out by failures of guesses', () => {
    const { balancer, clock } = setUp({ a: 1 }, {})
    failTimes(balancer, 'a', 3)
    clock.advance(6000)
    failTimes(balancer, 'a', 5)
    expect(balancer.targets[0]?.heldUntilMs).toBe(10_000)
    clock.advance(4000)
    expect(take(balancer).degraded).toBe(false)
    expect(statuses(balancer)).toBe('trial')
    expect(balancer.degraded).toBe(true)
  })

  it('is the last resort of a retry too: excluded are those that were tried, not those that are ejected', () => {
    const { balancer } = setUp()
    failTimes(balancer, 'b', 3)
    const first = take(balancer)
    const second = balancer.pick({ exclude: new Set([first.target]) })
    expect(second?.target.name).toBe('b')
    expect(second?.degraded).toBe(true)
  })
})
