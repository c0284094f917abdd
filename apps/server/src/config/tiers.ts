import type { KeyPath } from './errors.ts'
import type { configSchema } from './schema.ts'
import { storeNames, type TierSettings } from './schema-cache.ts'

type StoreName = (typeof storeNames)[number]
type Resolved = ReturnType<(typeof configSchema)['parse']>

/** Nearest first, which is the order of `storeNames`: what somebody configures without saying more is there to be used. A Redis that keeps the rate limits has its purpose. */
function defaultTiers({ rateLimit, stores }: Resolved): TierSettings[] {
  const isMeant = (store: StoreName): boolean => store === 'memory' || (stores[store] !== undefined && !(store === 'redis' && rateLimit?.store === 'redis'))
  return storeNames.filter(isMeant).map((store) => ({ store, admit: 'all' }))
}

/** The tiers as configured, or the default. Reports stores that are listed and not configured, or listed twice. */
export function resolveTiers(settings: Resolved, report: (path: KeyPath, message: string) => void): readonly TierSettings[] {
  const { tiers } = settings.cache
  if (tiers === undefined) return defaultTiers(settings)
  const seen = new Set<string>()
  for (const [index, { store }] of tiers.entries()) {
    if (store !== 'memory' && settings.stores[store] === undefined) report(['cache', 'tiers', index], `the store "${store}" is not configured: stores.${store} is missing`)
    if (seen.has(store)) report(['cache', 'tiers', index], `the store "${store}" is listed twice`)
    seen.add(store)
  }
  return tiers
}

/** Stores that are configured and of no use: neither a tier nor where the rate limits are kept. */
export function unusedStores({ cache, rateLimit, routes, stores }: Resolved & { readonly cache: { readonly tiers: readonly TierSettings[] } }): StoreName[] {
  const tiers = routes?.some((route) => route.cache) === false ? [] : cache.tiers
  const isUsed = (name: StoreName): boolean => name === 'memory' || tiers.some(({ store }) => store === name) || (name === 'redis' && rateLimit?.store === 'redis')
  return storeNames.filter((name) => stores[name] !== undefined && !isUsed(name))
}
