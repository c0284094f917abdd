/** A clock that stands still until a test moves it. Has the shape of the `Clock` of `@proxy/pipeline`. */
export interface FakeClock {
  /** Milliseconds since 1970. */
  wallMs(): number
  /** Milliseconds since the clock was created. */
  monotonicMs(): number
  /** Moves both times forward. Throws RangeError if `ms` is negative or not a number: monotonic time never goes back. */
  advance(ms: number): void
  /** Moves the wall time alone, forward or back, as an operator or NTP does. */
  jumpWall(ms: number): void
}

export function createFakeClock(startWallMs = 1_700_000_000_000): FakeClock {
  let wall = startWallMs
  let monotonic = 0
  return {
    wallMs: () => wall,
    monotonicMs: () => monotonic,
    advance(ms) {
      if (!(ms >= 0)) throw new RangeError(`cannot advance by ${ms} ms`)
      wall += ms
      monotonic += ms
    },
    jumpWall(ms) {
      wall += ms
    }
  }
}
