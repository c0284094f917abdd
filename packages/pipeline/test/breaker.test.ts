import { createFakeClock } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { type BreakerState, createBreaker } from '../src/breaker.ts'

function setup(failureThreshold = 3, openMs = 1000) {
  const clock = createFakeClock()
  const changes: [BreakerState, BreakerState][] = []
  const breaker = createBreaker({ failureThreshold, openMs, clock, onStateChange: (state, previous) => changes.push([state, previous]) })
  const fail = (times: number) => {
    for (let i = 0; i < times; i++) breaker.failure()
  }
  return { clock, changes, breaker, fail }
}

describe('breaker', () => {
  test('is closed until so many failures came in a row', () => {
    const { breaker, fail, changes } = setup(3)
    fail(2)
    expect([breaker.state, breaker.allow()]).toEqual(['closed', true])
    fail(1)
    expect([breaker.state, breaker.allow()]).toEqual(['open', false])
    expect(changes).toEqual([['open', 'closed']])
  })

  test('a success starts the count again', () => {
    const { breaker, fail } = setup(3)
    fail(2)
    breaker.success()
    fail(2)
    expect(breaker.state).toBe('closed')
    fail(1)
    expect(breaker.state).toBe('open')
  })

  test('lets one probe through after openMs, and closes when it succeeds', () => {
    const { breaker, fail, clock, changes } = setup()
    fail(3)
    clock.advance(999)
    expect(breaker.allow()).toBe(false)
    clock.advance(1)
    expect([breaker.allow(), breaker.state]).toEqual([true, 'half-open'])
    expect([breaker.allow(), breaker.allow()]).toEqual([false, false])
    breaker.success()
    expect([breaker.state, breaker.allow(), breaker.allow()]).toEqual(['closed', true, true])
    expect(changes).toEqual([
      ['open', 'closed'],
      ['half-open', 'open'],
      ['closed', 'half-open']
    ])
  })

  test('opens again for openMs when the probe fails, after one failure', () => {
    const { breaker, fail, clock } = setup()
    fail(3)
    clock.advance(1000)
    expect(breaker.allow()).toBe(true)
    clock.advance(300)
    breaker.failure()
    expect(breaker.state).toBe('open')
    clock.advance(999)
    expect(breaker.allow()).toBe(false)
    clock.advance(1)
    expect(breaker.allow()).toBe(true)
  })

  test('a probe that never reports costs openMs, not the service', () => {
    const { breaker, fail, clock, changes } = setup()
    fail(3)
    clock.advance(1000)
    expect(breaker.allow()).toBe(true)
    clock.advance(999)
    expect(breaker.allow()).toBe(false)
    clock.advance(1)
    expect(breaker.allow()).toBe(true)
    breaker.success()
    expect(breaker.state).toBe('closed')
    expect(changes).toHaveLength(3)
  })

  test('what was under way when it opened changes nothing', () => {
    const { breaker, fail, clock } = setup()
    fail(3)
    clock.advance(900)
    fail(5)
    breaker.success()
    expect(breaker.state).toBe('open')
    // Neither were the late failures a reason to wait longer.
    clock.advance(100)
    expect(breaker.allow()).toBe(true)
  })

  test('after closing it takes the whole threshold to open again', () => {
    const { breaker, fail, clock } = setup()
    fail(3)
    clock.advance(1000)
    breaker.allow()
    breaker.success()
    fail(2)
    expect(breaker.state).toBe('closed')
    fail(1)
    expect(breaker.state).toBe('open')
  })

  test('over an hour of outage no second has two probes', () => {
    const { breaker, fail, clock } = setup(20, 1000)
    fail(20)
    const probes: number[] = []
    for (let ms = 0; ms < 3_600_000; ms += 100) {
      clock.advance(100)
      if (breaker.allow()) {
        probes.push(clock.monotonicMs())
        breaker.failure()
      }
    }
    expect(probes).toHaveLength(3600)
    expect(probes.every((at, i) => i === 0 || at - (probes[i - 1] as number) >= 1000)).toBe(true)
  })

  test('a jump of the wall clock has no effect', () => {
    const { breaker, fail, clock } = setup()
    fail(3)
    clock.jumpWall(3_600_000)
    expect(breaker.allow()).toBe(false)
    clock.jumpWall(-7_200_000)
    clock.advance(1000)
    expect(breaker.allow()).toBe(true)
  })

  test('uses the system clock when none is given', () => {
    const breaker = createBreaker({ failureThreshold: 1, openMs: 60_000 })
    expect(breaker.allow()).toBe(true)
    breaker.failure()
    expect(breaker.allow()).toBe(false)
  })

  // A service that answered every other time too late was asked for ever: there were never many failures in a row.
  test('opens by the share of failures too, where that is asked for', () => {
    const clock = createFakeClock()
    const options = { failureThreshold: 5, openMs: 1000, clock }
    const [sharing, counting] = [createBreaker({ ...options, failureShare: { failures: 10, calls: 20 } }), createBreaker(options)]
    for (let i = 0; i < 9; i++) for (const breaker of [sharing, counting]) for (const report of ['success', 'failure'] as const) breaker[report]()
    expect([sharing.state, counting.state]).toEqual(['closed', 'closed'])
    for (const breaker of [sharing, counting]) breaker.failure()
    expect([sharing.state, counting.state]).toEqual(['open', 'closed'])
    // What was before counts no more once it is closed again.
    clock.advance(1000)
    sharing.allow()
    sharing.success()
    sharing.failure()
    expect(sharing.state).toBe('closed')
  })

  test('failures that are further back than the latest calls do not count', () => {
    for (const calls of [20, 31]) {
      const breaker = createBreaker({ failureThreshold: 5, openMs: 1000, failureShare: { failures: 4, calls } })
      for (let i = 0; i < 100; i++) {
        if (i % calls < 3) breaker.failure()
        else breaker.success()
      }
      expect(breaker.state).toBe('closed')
      breaker.failure()
      expect([calls, breaker.state]).toEqual([calls, calls === 20 ? 'closed' : 'open'])
    }
  })

  test('refuses settings that make no sense', () => {
    for (const failureShare of [
      { failures: 0, calls: 1 },
      { failures: 3, calls: 2 },
      { failures: 1, calls: 32 }
    ])
      expect(() => createBreaker({ failureThreshold: 1, openMs: 1, failureShare })).toThrow(RangeError)
    expect(() => createBreaker({ failureThreshold: 0, openMs: 1 })).toThrow(RangeError)
    expect(() => createBreaker({ failureThreshold: Number.NaN, openMs: 1 })).toThrow(RangeError)
    expect(() => createBreaker({ failureThreshold: 1, openMs: 0 })).toThrow(RangeError)
  })
})
