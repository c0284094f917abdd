import type { TierStats } from '@proxy/cache'
import { cacheResult, type ProxyRequest, upstreamName, upstreamResult } from '@proxy/pipeline'
import { Counter, Gauge, Registry } from 'prom-client'
import { Durations } from './durations.ts'
import { addTierMetrics } from './tier-metrics.ts'
import { startedMs } from './trace.ts'

const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'QUERY', 'CONNECT'])

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
  private readonly durations = new Durations('http_requests_duration_seconds', 'Time from the request to the hand-over of its answer')
  private readonly cacheResults = new Tally()
  private readonly incomplete = new Tally()
  private readonly storeErrors = new Tally()
  private readonly upstreams = new Map<string, Tally>()
  private inFlight = 0
  private cacheStats: () => { readonly variantsRefused: number } = () => ({ variantsRefused: 0 })
  private readTiers: () => readonly TierStats[] = () => []

  constructor() {
    const registers = [this.registry]
    const { durations } = this
    new Counter({
      name: 'http_requests_total',
      help: 'Requests that were answered',
      labelNames: ['method', 'status'],
      registers,
      collect() {
        this.reset()
        for (const { method, status, count } of durations.series()) this.inc({ method, status }, count)
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
    this.counter('proxy_store_errors_total', 'Faults of stores, each once; the requests were served without them', 'store', this.storeErrors)
    addTierMetrics(this.registry, () => this.readTiers())
    const readVariantsRefused = (): number => this.cacheStats().variantsRefused
    new Counter({
      name: 'proxy_cache_variants_refused_total',
      help: 'Answers that were not kept because their URL had too many variants',
      registers,
      collect() {
        this.reset()
        this.inc(readVariantsRefused())
      }
    })
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

  /** Where what the caches count is read when it is asked for. */
  watchCache(stats: () => { readonly variantsRefused: number }): void {
    this.cacheStats = stats
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
    const method = request?.method ?? 'other'
    this.durations.observe(knownMethods.has(method) ? method : 'other', status, since === undefined ? 0 : (performance.now() - since) / 1000)
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

  /** Tells where the statistics of the cache's tiers are read. */
  observeTiers(read: () => readonly TierStats[]): void {
    this.readTiers = read
  }

  storeFailed(store: string): void {
    this.storeErrors.add(store)
  }

  /** The text format of Prometheus. */
  async render(): Promise<string> {
    return `${this.durations.render()}\n${await this.registry.metrics()}`
  }

  get contentType(): string {
    return this.registry.contentType
  }
}
