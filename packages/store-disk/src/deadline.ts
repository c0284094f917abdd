import { DiskError } from './errors.ts'

/** What one piece of work may look at to find out that nobody waits any more. */
export interface Attempt {
  over: boolean
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
      clearTimeout(timer)
      outer?.removeEventListener('abort', onAbort)
      return true
    }
    const onAbort = (): void => {
      if (finish()) reject(new DiskError('aborted'))
    }
    const timer = setTimeout(() => {
      if (finish()) reject(new DiskError('timeout'))
    }, timeoutMs)
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
  let timer: NodeJS.Timeout | undefined
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, timeoutMs)
  })
  await Promise.race([work, late])
  clearTimeout(timer)
}
