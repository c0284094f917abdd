import { DiskError } from './errors.ts'

/** What one piece of work may look at to find out that nobody waits any more. */
export interface Attempt {
  over: boolean
}

/** Parts in which a deadline runs out. */
const STEPS = 4

/**
 * Calls `expire` after `timeoutMs` in which this process ran; the result calls that off. Timers that are due run before what the disk has answered is looked at, so
 * after a pause of the process a plain timer would blame the disk for it: here a pause, however long, uses up one step, and the others are still to come.
 */
function expireAfter(timeoutMs: number, expire: () => void): () => void {
  let steps = 0
  let timer: NodeJS.Timeout | undefined
  let last: NodeJS.Immediate | undefined
  const step = (): void => {
    if (++steps < STEPS) begin()
    else last = setImmediate(expire)
  }
  const begin = (): void => {
    timer = setTimeout(step, Math.ceil(timeoutMs / STEPS))
  }
  begin()
  return () => {
    clearTimeout(timer)
    clearImmediate(last)
  }
}

/**
 * Runs `work` for at most `timeoutMs` and as long as `outer` is not aborted; then rejects with DISK_TIMEOUT or DISK_ABORTED and hands a value that still
 * comes to `late`, which gives it up. File operations cannot be cut off: what hangs goes on hanging in its thread.
 */
export function withDeadline<T>(timeoutMs: number, outer: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>, late: (value: T) => void): Promise<T> {
  if (outer?.aborted) return Promise.reject(new DiskError('aborted'))
  return new Promise((resolve, reject) => {
    const attempt: Attempt = { over: false }
    const finish = (): boolean => {
      if (attempt.over) return false
      attempt.over = true
      callOff()
      outer?.removeEventListener('abort', onAbort)
      return true
    }
    const onAbort = (): void => {
      if (finish()) reject(new DiskError('aborted'))
    }
    const callOff = expireAfter(timeoutMs, () => {
      if (finish()) reject(new DiskError('timeout'))
    })
    outer?.addEventListener('abort', onAbort, { once: true })
    work(attempt).then(
      (value) => {
        if (finish()) resolve(value)
        else late(value)
      },
      (error: unknown) => {
        // After the deadline its caller has been told already.
        if (finish()) reject(error)
      }
    )
  })
}

/** Waits for `work`, but no longer than `timeoutMs`. Never rejects for the time. */
export async function settledWithin(timeoutMs: number, work: Promise<unknown>): Promise<void> {
  const late = Promise.withResolvers<void>()
  const callOff = expireAfter(timeoutMs, late.resolve)
  await Promise.race([work, late.promise])
  callOff()
}
