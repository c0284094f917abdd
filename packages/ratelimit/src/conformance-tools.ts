import type { Clock } from '@proxy/pipeline'

/** Stands still until it is advanced. */
export class ManualClock implements Clock {
  elapsedMs = 0

  wallMs(): number {
    return 1_700_000_000_000 + this.elapsedMs
  }

  monotonicMs(): number {
    return this.elapsedMs
  }

  advance(ms: number): void {
    this.elapsedMs += ms
  }
}

/** Numbers from 0 to 1 that are the same in every run (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
