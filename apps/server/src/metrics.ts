import { cacheResult, type ProxyRequest, upstreamName, upstreamResult } from '@proxy/pipeline'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { startedMs } from './trace.ts'

const buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'QUERY'])

type Observe = (seconds: number) => void

/** Counts that are kept as plain numbers and handed to the registry when it is read: counting on the request path costs next to nothing. */
class Tally {
  private readonly counts = new Map<string, number>()

  add(label: string): void {
    this.counts.set(label, (this.counts.get(label) ?? 0) + 1)
  }

  entries(): IterableIterator<[string, number]> {
    return this.counts.entries()
  }
}

/**
 * What the server counts, as Prometheus reads it. Labels have few values each: methods outside a fixed set are `other`, results are
 * statuses by class or error codes, upstreams come from the configuration.
 */
export class Metrics {
  private readonly registry = new Registry()
  private readonly durations: Histogram<'method' | 'status'>
  private readonly observers = new Map<string, Map<number, Observe>>()
  private readonly cacheResults = new Tally()
  private readonly incomplete = new Tally()
  private readonly storeErrors = new Tally()
  private readonly upstreams = new Map<string, Tally>()
  private inFlight = 0

  constructor() {
    const registers = [this.registry]
    const durations = new Histogram({
      name: 'http_requests_duration_seconds',
      help: 'Time from the request to the hand-over of its answer',
      labelNames: ['method', 'status'] as const,
      buckets,
      registers
    })
    this.durations = durations
    new Counter({
      name: 'http_requests_total',
      help: 'Requests that were answered',
      labelNames: ['method', 'status'],
      registers,
      async collect() {
        this.reset()
        for (const { metricName, labels, value } of (await durations.get()).values)
          if (metricName === 'http_requests_duration_seconds_count') this.inc(labels as Record<string, string | number>, value)
      }
    })
    const readInFlight = (): number => this.inFlight
    new Gauge({
      name: 'http_requests_in_flight',
      help: 'Requests that are being answered',
      registers,
      collect() {
        this.set(readInFlight())
      }
    })
    this.counter('http_responses_incomplete_total', 'Answers that were cut: the client left (aborted) or the body broke off (failed)', 'outcome', this.incomplete)
    this.counter('proxy_cache_results_total', 'What the cache did', 'result', this.cacheResults)
    this.counter('proxy_store_errors_total', 'Failed operations of cache stores; the requests were served without them', 'store', this.storeErrors)
    const { upstreams } = this
    new Counter({
      name: 'proxy_upstream_results_total',
      help: 'How the last attempt at an upstream ended: status class or error code',
      labelNames: ['upstream', 'result'],
      registers,
      collect() {
        this.reset()
        for (const [upstream, results] of upstreams) for (const [result, value] of results.entries()) this.inc({ upstream, result }, value)
      }
    })
  }

  private counter(name: string, help: string, label: string, tally: Tally): void {
    new Counter({
      name,
      help,
      labelNames: [label],
      registers: [this.registry],
      collect() {
        this.reset()
        for (const [value, total] of tally.entries()) this.inc({ [label]: value }, total)
      }
    })
  }

  requestStarted(): void {
    this.inFlight++
  }

  /** `request` is undefined when the message was refused before it became one. */
  requestDone(request: ProxyRequest | undefined, status: number, outcome: string): void {
    this.inFlight--
    if (outcome !== 'complete') this.incomplete.add(outcome)
    const exchange = request?.exchange
    const since = exchange?.get(startedMs)
    this.observer(request?.method ?? 'other', status)(since === undefined ? 0 : (performance.now() - since) / 1000)
    if (exchange === undefined) return
    const cached = exchange.get(cacheResult)
    if (cached !== undefined) this.cacheResults.add(cached)
    const result = exchange.get(upstreamResult)
    if (result === undefined) return
    const upstream = exchange.get(upstreamName) ?? ''
    let results = this.upstreams.get(upstream)
    if (results === undefined) this.upstreams.set(upstream, (results = new Tally()))
    results.add(typeof result === 'number' ? `${Math.floor(result / 100)}xx` : result)
  }

  storeFailed(store: string): void {
    this.storeErrors.add(store)
  }

  private observer(method: string, status: number): Observe {
    const label = knownMethods.has(method) ? method : 'other'
    let byStatus = this.observers.get(label)
    if (byStatus === undefined) this.observers.set(label, (byStatus = new Map()))
    let observe = byStatus.get(status)
    if (observe === undefined) {
      const series = this.durations.labels(label, String(status))
      observe = (seconds) => series.observe(seconds)
      byStatus.set(status, observe)
    }
    return observe
  }

  /** The text format of Prometheus. */
  render(): Promise<string> {
    return this.registry.metrics()
  }

  get contentType(): string {
    return this.registry.contentType
  }
}
