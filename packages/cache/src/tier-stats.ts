import type { BreakerState } from '@proxy/pipeline/breaker'

/** What a tier has been asked, and what came of it. Counts since the start. */
export interface TierStats {
  readonly name: string
  readonly hits: number
  /** While the tier is left out, lookups are neither hits nor misses. */
  readonly misses: number
  /** Operations that failed, those out of time among them; the others went on. */
  readonly errors: number
  /** Operations without an answer in time, also inside the store as far as it counts them. */
  readonly timeouts: number
  /** Entries copied to it from further away. */
  readonly promotions: number
  /** Of bodies that were opened to be read. */
  readonly bytesServed: number
  /** Of bodies that were stored, copies among them. */
  readonly bytesWritten: number
  /** Writes that were not tried, or not stored: tier left out, body too large, no room, too slow. */
  readonly writesGivenUp: number
  /** Bytes of writes that are not settled, as far as the tier or its store bounds them. */
  readonly bufferedBytes: number
  /** Keys whose removal the tier missed, and under which nothing is found in it. */
  readonly missedRemovals: number
  /** The store's own or the tier's, whichever lets less through. */
  readonly readBreaker: BreakerState
  readonly writeBreaker: BreakerState
  /** What the store holds and has evicted, where it can tell. */
  readonly entries: number | undefined
  readonly bytes: number | undefined
  readonly evictions: number | undefined
}

const order: readonly BreakerState[] = ['closed', 'half-open', 'open']

/** The state that lets less through. */
export function worse(a: BreakerState, b: BreakerState = 'closed'): BreakerState {
  return order.indexOf(a) > order.indexOf(b) ? a : b
}
