import type { Policy } from './limiter.ts'

/** A bucket that holds `burst` tokens and gains `rate` of them per `perMs`, continuously. `{ rate: 100, perMs: 60_000, burst: 10 }` is 10 at once and then 1.67 a second. */
export interface TokenBucketSettings {
  /** Tokens gained per `perMs`. Above 0, may be a fraction. */
  readonly rate: number
  /** Milliseconds. Default 1000: `rate` is per second. */
  readonly perMs?: number
  /** Tokens a full bucket holds; a new key starts with as many. At least 1. */
  readonly burst: number
  /** Default `default`. Letters, digits, `_`, `-` and `.`, at most 64. */
  readonly name?: string
}

/** At most `limit` within any `windowMs`. */
export interface SlidingWindowSettings {
  /** At least 1. */
  readonly limit: number
  /** Milliseconds. Above 0. */
  readonly windowMs: number
  /**
   * Parts of the window in which arrivals share one entry of the log. What was taken comes back at most `windowMs / resolution` late, never early;
   * memory of a key is at most `resolution + 2` entries of 16 bytes. 1 to 1000, default 32.
   */
  readonly resolution?: number
  /** Default `default`. Letters, digits, `_`, `-` and `.`, at most 64. */
  readonly name?: string
}

/** The largest limit, rate and time in milliseconds: stays exact in doubles and within the integers of RFC 9651. */
const MAX = 1e12
const DEFAULT_RESOLUTION = 32

export function tokenBucketPolicy({ rate, perMs = 1000, burst, name }: TokenBucketSettings): Policy {
  within('rate', rate, Number.MIN_VALUE)
  within('perMs', perMs, Number.MIN_VALUE)
  within('burst', burst, 1)
  return policy(name, burst, (burst * perMs) / rate)
}

export function slidingWindowPolicy({ limit, windowMs, name }: SlidingWindowSettings): Policy {
  within('limit', limit, 1)
  within('windowMs', windowMs, Number.MIN_VALUE)
  return policy(name, limit, windowMs)
}

/** The time in which arrivals are logged as one, in milliseconds. */
export function grainMs({ windowMs, resolution = DEFAULT_RESOLUTION }: SlidingWindowSettings): number {
  if (!Number.isInteger(resolution) || resolution < 1 || resolution > 1000) throw new RangeError(`resolution must be a whole number from 1 to 1000, not ${resolution}`)
  return windowMs / resolution
}

function policy(name = 'default', limit: number, windowMs: number): Policy {
  if (!/^[\w.-]{1,64}$/.test(name)) throw new RangeError(`a policy's name is 1 to 64 letters, digits, "_", "-" or ".", not "${name}"`)
  within('the time to refill', windowMs, Number.MIN_VALUE)
  return Object.freeze({ name, limit, windowMs })
}

function within(what: string, value: number, least: number): void {
  if (!(value >= least && value <= MAX)) throw new RangeError(`${what} must be ${least === 1 ? 'at least 1' : 'above 0'} and at most ${MAX}, not ${value}`)
}
