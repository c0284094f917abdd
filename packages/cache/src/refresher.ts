import { derive, discardBody, Exchange, type Handler, type ProxyRequest } from '@proxy/pipeline'
import { clientKind } from './authorized.ts'
import type { Background } from './background.ts'
import type { EngineOptions } from './engine-options.ts'
import type { Fetcher, Found } from './fetcher.ts'
import type { Fill } from './fill.ts'
import { Recent } from './recent.ts'
import type { CacheEntry } from './store.ts'
import type { ClientKind, Uncacheable } from './uncacheable.ts'

/** After a failure, clients that may have a stale response do not wait for the origin for so long. Milliseconds. */
const RETRY_MS = 1000
const MAX_FAILED = 10_000

interface Failure {
  /** What the origin answered, if it did. */
  readonly status: number | undefined
  /** Monotonic. */
  readonly untilMs: number
}

/** Revalidates in the background what was served stale: one request at a time for each key. */
export class Refresher {
  private readonly options: EngineOptions
  private readonly fetcher: Fetcher
  private readonly background: Background
  private readonly uncacheable: Uncacheable
  private readonly running = new Set<string>()
  /** Keys for which the origin has failed, and until when it is left alone. */
  private readonly failed = new Recent<Failure>(MAX_FAILED)

  constructor(options: EngineOptions, fetcher: Fetcher, background: Background, uncacheable: Uncacheable) {
    this.options = options
    this.uncacheable = uncacheable
    this.fetcher = fetcher
    this.background = background
  }

  /** Asks the origin if `found.stale` still holds, unless that is under way. Its body is not read. */
  start(found: Found, request: ProxyRequest, next: Handler, authorized: boolean): void {
    const { key } = found
    if (this.running.has(key) || this.failure(key) !== undefined) return
    this.running.add(key)
    const exchange = new Exchange()
    exchange.requestId = request.exchange.requestId
    const fill = this.fetcher.start(found, derive(request, { method: 'GET', exchange }), next, { authorized, whole: true })
    this.background.add(this.finish(fill, key, clientKind(request)))
  }

  private async finish(fill: Fill, key: string, kind: ClientKind): Promise<void> {
    try {
      const outcome = await fill.outcome
      if (outcome.kind === 'shared') {
        outcome.leaderBody.discard()
        // One of unknown length has to come to its end before it is known whether it could be stored.
        if (!(await outcome.body.settled) && outcome.body.outgrew) this.uncacheable.add(key, kind, 'too-large', outcome.status, this.options.clock.monotonicMs())
      } else if (outcome.kind === 'unshared') {
        discardBody(outcome.response.body)
        this.uncacheable.add(key, kind, outcome.reason, outcome.response.status, this.options.clock.monotonicMs())
      } else if (outcome.kind === 'stale') this.leaveAlone(key, outcome.status)
    } catch {
      // The client has its answer; whoever comes next is told, if it is still so then.
      this.leaveAlone(key, undefined)
    } finally {
      this.running.delete(key)
    }
  }

  /** How the origin failed a moment ago, if it did. */
  failure(key: string): Failure | undefined {
    const failure = this.failed.get(key)
    return failure !== undefined && failure.untilMs > this.options.clock.monotonicMs() ? failure : undefined
  }

  leaveAlone(key: string, status: number | undefined): void {
    this.failed.set(key, { status, untilMs: this.options.clock.monotonicMs() + RETRY_MS })
  }
}

/** An entry as far as a refresh needs it: nobody reads its body. */
export function bodiless({ version, meta }: CacheEntry): CacheEntry {
  return { version, meta, open: () => Promise.reject(new Error('the body was given away')), discard() {} }
}
