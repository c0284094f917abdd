import type { Clock } from '@proxy/pipeline'
import type { Breaker } from '@proxy/pipeline/breaker'
import { storedKey } from './key-table.ts'
import { checkCost, type Decision, type Limiter, type MemoryLimiter, type Policy } from './limiter.ts'
import type { Script } from './redis-scripts.ts'

/** What is asked of a Redis client. ioredis has this shape. */
export interface ScriptClient {
  evalsha(sha: string, numKeys: number, ...keysAndArgs: (string | number)[]): Promise<unknown>
  eval(script: string, numKeys: number, ...keysAndArgs: (string | number)[]): Promise<unknown>
}

/** Why a decision was not made by Redis: no reply in time, an error reply or none at all, or not asked because the breaker is open. */
export type FaultReason = 'timeout' | 'error' | 'open'

interface RedisLimiterParts {
  readonly client: ScriptClient
  readonly script: Script
  readonly policy: Policy
  readonly keyPrefix: string
  /** Arguments of the script that follow the cost. */
  readonly settings: readonly string[]
  readonly timeoutMs: number
  readonly breaker: Breaker
  /** Undefined: the server's own. */
  readonly clock: Clock | undefined
  /** Decides in Redis' stead. */
  readonly fallback: MemoryLimiter | 'allow' | 'deny'
  readonly onFault: ((reason: FaultReason, error: unknown) => void) | undefined
}

/** For `deny`: how long a client is told to wait, and for a clock of the caller how much longer than needed keys live, as it may be behind the server's. */
const DENIED_RETRY_MS = 1000
const CALLER_TIME_SPARE_MS = 60_000

export class RedisLimiter implements Limiter {
  private readonly parts: RedisLimiterParts

  constructor(parts: RedisLimiterParts) {
    this.parts = parts
  }

  take(key: string, cost = 1): Promise<Decision> {
    try {
      checkCost(cost)
    } catch (error) {
      return Promise.reject(error)
    }
    const { breaker } = this.parts
    if (breaker.state !== 'closed') {
      // The probe is made on nobody's time: while the breaker is not closed, Redis adds no latency to any request.
      if (breaker.allow()) this.ask(key, cost, ignore, (reason, error) => this.report(reason, error))
      this.report('open', undefined)
      return Promise.resolve(this.instead(key, cost))
    }
    return new Promise((resolve) => {
      this.ask(key, cost, resolve, (reason, error) => {
        this.report(reason, error)
        resolve(this.instead(key, cost))
      })
    })
  }

  /** Calls one of both, once, after `timeoutMs` at the latest; what comes later is dropped. */
  private ask(key: string, cost: number, onDecision: (decision: Decision) => void, onFailure: (reason: FaultReason, error: unknown) => void): void {
    const { breaker, timeoutMs } = this.parts
    let waiting = true
    const fail = (reason: FaultReason, error: unknown): void => {
      if (!waiting) return
      waiting = false
      clearTimeout(timer)
      breaker.failure()
      onFailure(reason, error)
    }
    // Timers run before sockets are read: after a pause of this process the reply may be there already, and gets its turn first.
    const timer = setTimeout(() => setImmediate(fail, 'timeout', undefined), timeoutMs)
    this.run(key, cost).then(
      (decision) => {
        if (!waiting) return
        waiting = false
        clearTimeout(timer)
        breaker.success()
        onDecision(decision)
      },
      (error: unknown) => fail('error', error)
    )
  }

  /** A server that has started anew has lost its scripts: then the text is sent, which caches it again. */
  private async run(key: string, cost: number): Promise<Decision> {
    const { client, script, clock, keyPrefix, settings } = this.parts
    const args = [keyPrefix + storedKey(key), clock === undefined ? -1 : Math.round(clock.wallMs() * 1000), clock === undefined ? 0 : CALLER_TIME_SPARE_MS, cost, ...settings]
    try {
      return this.decision(await client.evalsha(script.sha, 1, ...args))
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
      return this.decision(await client.eval(script.text, 1, ...args))
    }
  }

  private decision(reply: unknown): Decision {
    const { policy } = this.parts
    const [allowed, remaining, reset, retry] = (Array.isArray(reply) ? reply : []).map(Number) as [number, number, number, number]
    if (!(remaining >= 0 && reset >= 0 && retry >= -1)) throw new TypeError('the reply of the script is not the one of a limiter')
    return { allowed: allowed === 1, limit: policy.limit, remaining, resetAfterMs: wholeMs(reset), retryAfterMs: retry === -1 ? Number.POSITIVE_INFINITY : wholeMs(retry), policy }
  }

  private report(reason: FaultReason, error: unknown): void {
    try {
      this.parts.onFault?.(reason, error)
    } catch {
      // Whoever counts faults must not add one: this may run in a timer, where a throw ends the process.
    }
  }

  private instead(key: string, cost: number): Decision {
    const { fallback, policy } = this.parts
    if (fallback === 'allow') return { allowed: true, limit: policy.limit, remaining: Math.floor(policy.limit), resetAfterMs: 0, retryAfterMs: 0, policy }
    if (fallback === 'deny') return { allowed: false, limit: policy.limit, remaining: 0, resetAfterMs: DENIED_RETRY_MS, retryAfterMs: DENIED_RETRY_MS, policy }
    return { ...fallback.takeNow(key, cost), policy }
  }
}

function ignore(): void {}

function wholeMs(us: number): number {
  return Math.ceil(us / 1000)
}
