/** What setTimeout takes: more would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

/** A time that may be Infinity, as setTimeout takes it. */
export function timerMs(ms: number): number {
  return Math.min(ms, LONGEST_TIMER_MS)
}

/** Resolves when `work` has ended in whatever way, after `ms` at the latest. */
export async function settledWithin(work: Promise<unknown>, ms: number): Promise<void> {
  const over = Promise.withResolvers<void>()
  const timer = setTimeout(over.resolve, timerMs(ms))
  const end = (): void => over.resolve()
  work.then(end, end)
  await over.promise
  clearTimeout(timer)
}

/** Waits for `work`, for `timeoutMs` at most; then rejects with what `timedOut` gives, and hands a value that still comes to `late`. */
export function withDeadline<T>(work: Promise<T>, timeoutMs: number, timedOut: () => unknown, late: (value: T) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = false
    const finish = (): boolean => {
      if (over) return false
      over = true
      clearTimeout(timer)
      return true
    }
    const expire = (): void => {
      if (finish()) reject(timedOut())
    }
    // Timers run before sockets are read: after a pause of this process the answer may be there already, and gets its turn first.
    const timer = setTimeout(() => setImmediate(expire), timerMs(timeoutMs))
    work.then(
      (value) => {
        if (finish()) resolve(value)
        else late(value)
      },
      (error: unknown) => {
        // After the deadline whoever waited has been told already.
        if (finish()) reject(error)
      }
    )
  })
}
