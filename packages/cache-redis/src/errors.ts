import { ProxyError } from '@proxy/pipeline'

/**
 * Codes of this package's errors, all of them `ProxyError`s:
 * - `REDIS_UNAVAILABLE`: not connected, the connection broke, the breaker is open, too many commands wait already, or the store was closed.
 * - `REDIS_TIMEOUT`: no reply within `commandTimeoutMs`.
 * - `REDIS_WRITE_REFUSED`: Redis answers but takes no writes now: out of memory, read-only, a failed save, too few replicas.
 * - `REDIS_WRONG_TYPE`: the key holds something that is no hash: not ours.
 * - `REDIS_ERROR`: any other error reply.
 * - `REDIS_CLOCK_AHEAD`: nothing failed, but purges cannot be relied on as they could with clocks that agree.
 * - `STORE_ENTRY_GONE`: the version that was to be read has been replaced, deleted or evicted.
 * - `STORE_BODY_BROKEN`: what Redis holds is not what was written.
 */
export type RedisErrorCode = 'REDIS_UNAVAILABLE' | 'REDIS_TIMEOUT' | 'REDIS_WRITE_REFUSED' | 'REDIS_WRONG_TYPE' | 'REDIS_ERROR' | 'REDIS_CLOCK_AHEAD' | 'STORE_ENTRY_GONE' | 'STORE_BODY_BROKEN'

export function redisError(code: RedisErrorCode, message: string): ProxyError {
  return new ProxyError(message, { code, status: 503, source: 'proxy' })
}

/** Redis takes no writes but answers reads. */
const writeRefusals: ReadonlySet<string> = new Set(['OOM', 'READONLY', 'MISCONF', 'NOREPLICAS'])
/** Redis answers, but nothing can be had from it: to be counted like silence. */
const unusable: ReadonlySet<string> = new Set(['LOADING', 'BUSY', 'MASTERDOWN', 'CLUSTERDOWN', 'NOAUTH', 'NOPERM', 'WRONGPASS'])

/** What a failed command says about Redis. */
export interface CommandFailure {
  readonly error: ProxyError
  /** Whether Redis is alive and of use, so that the next command may well succeed. */
  readonly answered: boolean
}

/**
 * A driver's error as one of ours. The driver's own is not kept as the cause: it carries the command with its arguments,
 * that is whole bodies, or the password where the command was the handshake.
 */
export function commandFailure(error: unknown): CommandFailure {
  const { message, name } = error instanceof Error ? error : new Error(String(error))
  if (name === 'ReplyError') {
    const reply = replyError(error as Error)
    const code = replyCode(reply.message)
    return { error: redisError(errorCode(code), `Redis answered: ${reply.message}`), answered: !unusable.has(code) }
  }
  if (message === 'Command timed out') return { error: redisError('REDIS_TIMEOUT', 'Redis did not answer in time'), answered: false }
  return { error: redisError('REDIS_UNAVAILABLE', `the connection to Redis failed: ${message}`), answered: false }
}

function errorCode(reply: string): RedisErrorCode {
  if (writeRefusals.has(reply)) return 'REDIS_WRITE_REFUSED'
  return reply === 'WRONGTYPE' ? 'REDIS_WRONG_TYPE' : 'REDIS_ERROR'
}

/** The reason behind an EXECABORT, which itself says only that there was one. */
function replyError(error: Error): Error {
  const previous = (error as { previousErrors?: readonly Error[] }).previousErrors
  return previous?.find((one) => one.name === 'ReplyError') ?? error
}

/** First word of an error reply. Before Redis 7, errors inside a script come wrapped: `ERR Error running script (…): @user_script: 3: -OOM command not allowed …`. */
export function replyCode(message: string): string {
  const wrapped = / -([A-Z]+) /.exec(message)
  return wrapped?.[1] ?? message.split(' ', 1)[0] ?? ''
}
