import type { TierStats } from '@proxy/cache'
import { Counter, Gauge, type Registry } from 'prom-client'

type Read = (tier: TierStats) => number | undefined

const counters: readonly (readonly [string, string, Read])[] = [
  ['hits', 'Lookups that found something in the tier', (tier) => tier.hits],
  ['misses', 'Lookups that found nothing in the tier', (tier) => tier.misses],
  ['errors', 'Operations that the tier failed; the requests were served without it', (tier) => tier.errors],
  ['timeouts', 'Operations that the tier did not answer in time', (tier) => tier.timeouts],
  ['promotions', 'Entries copied to the tier from one further away', (tier) => tier.promotions],
  ['writes_given_up', 'Writes that were not tried or not stored: tier away, body too large, no room, too slow', (tier) => tier.writesGivenUp],
  ['bytes_served', 'Bytes of the bodies that were opened in the tier', (tier) => tier.bytesServed],
  ['bytes_written', 'Bytes of the bodies that were stored in the tier', (tier) => tier.bytesWritten],
  ['evictions', 'Entries that had to go for want of room, where the store can tell', (tier) => tier.evictions]
]

const gauges: readonly (readonly [string, string, Read])[] = [
  ['entries', 'Entries that the tier holds, where the store can tell', (tier) => tier.entries],
  ['size_bytes', 'Bytes that the tier holds, where the store can tell', (tier) => tier.bytes],
  ['buffered_bytes', 'Bytes of writes that the tier has not settled', (tier) => tier.bufferedBytes],
  ['missed_removals', 'Keys whose removal the tier missed', (tier) => tier.missedRemovals]
]

const breakerValues = { closed: 0, 'half-open': 1, open: 2 }

/** Adds the series of the cache's tiers: `proxy_cache_tier_…`, by `tier`. `read` is asked whenever they are collected. */
export function addTierMetrics(registry: Registry, read: () => readonly TierStats[]): void {
  const registers = [registry]
  for (const [name, help, valueIn] of counters) {
    new Counter({
      name: `proxy_cache_tier_${name}_total`,
      help,
      labelNames: ['tier'],
      registers,
      collect() {
        this.reset()
        for (const tier of read()) {
          const value = valueIn(tier)
          if (value !== undefined) this.inc({ tier: tier.name }, value)
        }
      }
    })
  }
  for (const [name, help, valueIn] of gauges) {
    new Gauge({
      name: `proxy_cache_tier_${name}`,
      help,
      labelNames: ['tier'],
      registers,
      collect() {
        this.reset()
        for (const tier of read()) {
          const value = valueIn(tier)
          if (value !== undefined) this.set({ tier: tier.name }, value)
        }
      }
    })
  }
  new Gauge({
    name: 'proxy_cache_tier_breaker_state',
    help: 'Whether the tier is asked (side read) and written to (side write): 0 closed, it is; 1 half-open, it is tried; 2 open, it is not',
    labelNames: ['tier', 'side'],
    registers,
    collect() {
      this.reset()
      for (const { name: tier, readBreaker, writeBreaker } of read()) {
        this.set({ tier, side: 'read' }, breakerValues[readBreaker])
        this.set({ tier, side: 'write' }, breakerValues[writeBreaker])
      }
    }
  })
}
