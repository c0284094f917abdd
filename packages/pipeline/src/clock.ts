import { performance } from 'node:perf_hooks'

/** Time as the packages read it. Injected, so that tests advance it instead of waiting. */
export interface Clock {
  /** Milliseconds since 1970, may jump: only for dates that are stored or sent. */
  wallMs(): number
  /** Milliseconds since some start, never jumps: for ages, deadlines and rates. */
  monotonicMs(): number
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now()
}
