import { S3Error } from './errors.ts'

/**
 * Runs `work` for at most `timeoutMs` and as long as `outer` is not aborted; then rejects at once with S3_TIMEOUT or S3_ABORTED, aborts the signal that `work`
 * was given, and hands a value that still comes to `late`, which gives it up.
 */
export function withDeadline<T>(timeoutMs: number, outer: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>, late: (value: T) => void): Promise<T> {
  if (outer?.aborted) return Promise.reject(new S3Error('aborted'))
  return new Promise((resolve, reject) => {
    const controller = new AbortController()
    let over = false
    const finish = (): boolean => {
      if (over) return false
      over = true
      clearTimeout(timer)
      outer?.removeEventListener('abort', onAbort)
      return true
    }
    const giveUp = (kind: 'timeout' | 'aborted'): void => {
      if (!finish()) return
      reject(new S3Error(kind))
      controller.abort()
    }
    const onAbort = (): void => giveUp('aborted')
    const timer = setTimeout(giveUp, timeoutMs, 'timeout')
    outer?.addEventListener('abort', onAbort, { once: true })
    work(controller.signal).then(
      (value) => {
        if (finish()) resolve(value)
        else late(value)
      },
      (error: unknown) => {
        // After the deadline this is only the echo of the abort: the caller knows already.
        if (finish()) reject(error)
      }
    )
  })
}
