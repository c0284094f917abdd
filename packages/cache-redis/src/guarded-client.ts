import type { Clock, ProxyError } from '@proxy/pipeline'
import { type Breaker, type BreakerState, createBreaker } from '@proxy/pipeline/breaker'
import type { Redis } from 'ioredis'
import { commandFailure, redisError } from './errors.ts'

export interface GuardOptions {
  readonly client: Redis
  readonly commandTimeoutMs: number
  readonly maxPendingCommands: number
  readonly failureThreshold: number
  readonly openMs: number
  readonly clock: Clock
  readonly onFault: (error: ProxyError) => void
  readonly onStateChange?: ((state: BreakerState, previous: BreakerState) => void) | undefined
}

/** A command whose reply somebody waits for. */
interface Waiting {
  giveUp(error: unknown): void
}

// Refusals are made once: while Redis is away there is one for every request, and an error with a stack costs more than the whole lookup.
const notConnected = redisError('REDIS_UNAVAILABLE', 'there is no connection to Redis')
const breakerOpen = redisError('REDIS_UNAVAILABLE', 'Redis has failed too often and is not asked for a while')
const tooMany = redisError('REDIS_UNAVAILABLE', 'too many commands wait for Redis')
const closed = redisError('REDIS_UNAVAILABLE', 'the store is closed')

/**
 * A Redis client with a deadline for every command and a breaker in front. While Redis does not answer, commands are refused at once and nothing is sent but
 * a PING per `openMs`, on nobody's time. When the breaker opens, those who still wait are told at once: they would only wait for their own timeout.
 */
export class GuardedClient {
  readonly breaker: Breaker
  /** Commands that no reply came for in time. */
  timeouts = 0
  /** Commands that failed otherwise: error replies and broken connections. */
  errors = 0
  /** Commands that were not sent, or not waited for any longer, because Redis was known to be away. */
  refused = 0
  private readonly options: GuardOptions
  private readonly waiting = new Set<Waiting>()
  private onIdle: (() => void) | undefined
  private isClosed = false

  constructor(options: GuardOptions) {
    this.options = options
    this.breaker = createBreaker({
      failureThreshold: options.failureThreshold,
      openMs: options.openMs,
      clock: options.clock,
      onStateChange: (state, previous) => {
        if (state === 'open') this.giveUpWaiting()
        options.onStateChange?.(state, previous)
      }
    })
  }

  get pending(): number {
    return this.waiting.size
  }

  get closed(): boolean {
    return this.isClosed
  }

  /** Whether the client has a connection; starts it where it was made lazily and nobody has yet. */
  get connected(): boolean {
    const { client } = this.options
    if (client.status === 'ready') return true
    if (client.status === 'wait') client.connect().catch(ignore)
    return false
  }

  /** Sends a command unless Redis is known to be away. Rejects with the errors of errors.ts, or with the signal's reason; a reply that comes later is dropped. */
  run<T>(send: (client: Redis) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const refusal = this.refusal()
    if (refusal === undefined) return this.issue(send, signal)
    this.refused++
    return Promise.reject(refusal)
  }

  /** Refuses commands from now on; resolves when those under way have been answered or have timed out. */
  close(): Promise<void> {
    this.isClosed = true
    if (this.waiting.size === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.onIdle = resolve
    })
  }

  private refusal(): ProxyError | undefined {
    if (this.isClosed) return closed
    // Asked before the breaker, whose permission would be lost here.
    if (!this.connected) return notConnected
    if (this.breaker.state !== 'closed') {
      if (this.breaker.allow()) this.issue(ping).catch(ignore)
      return breakerOpen
    }
    return this.waiting.size >= this.options.maxPendingCommands ? tooMany : undefined
  }

  private issue<T>(send: (client: Redis) => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (signal?.aborted === true) return Promise.reject(signal.reason)
    return new Promise<T>((resolve, reject) => {
      const reply = send(this.options.client)
      /** False when the command was settled before. */
      const leave = (): boolean => {
        if (!this.waiting.delete(command)) return false
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        // Whoever awaits the last reply hears of it first.
        if (this.waiting.size === 0 && this.onIdle !== undefined) setImmediate(this.onIdle)
        return true
      }
      const command: Waiting = {
        giveUp(error) {
          if (leave()) reject(error)
        }
      }
      const onAbort = (): void => command.giveUp(signal?.reason)
      const onTimeout = (): void => {
        if (leave()) reject(this.failed(redisError('REDIS_TIMEOUT', `Redis did not answer within ${this.options.commandTimeoutMs} ms`), false))
      }
      // Timers run before sockets are read: after a pause of this process the reply may be there already, and gets its turn first.
      const timer = setTimeout(() => setImmediate(onTimeout), this.options.commandTimeoutMs)
      signal?.addEventListener('abort', onAbort, { once: true })
      this.waiting.add(command)
      reply.then(
        (value) => {
          if (!leave()) return
          this.breaker.success()
          resolve(value)
        },
        (reason: unknown) => {
          if (!leave()) return
          const { error, answered } = commandFailure(reason)
          reject(this.failed(error, answered))
        }
      )
    })
  }

  private failed(error: ProxyError, answered: boolean): ProxyError {
    if (error.code === 'REDIS_TIMEOUT') this.timeouts++
    else this.errors++
    this.options.onFault(error)
    if (answered) this.breaker.success()
    else this.breaker.failure()
    return error
  }

  private giveUpWaiting(): void {
    this.refused += this.waiting.size
    for (const command of this.waiting) command.giveUp(breakerOpen)
  }
}

function ping(client: Redis): Promise<unknown> {
  return client.ping()
}

// Whoever asked has been answered already, and `failed` or the client's own listener has reported it.
function ignore(): void {}
