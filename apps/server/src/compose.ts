import { type CacheMiddleware, cache, type Purge, type PurgeResult, type TierStats } from '@proxy/cache'
import { compose, type Handler, type Middleware } from '@proxy/pipeline'
import { authLayer } from './access.ts'
import type { RouteSettings, Settings } from './config/schema.ts'
import { allowMethods, changeRequest, changeResponse, dropQuery, isEmptyChange, showCacheResult } from './fields.ts'
import { limitLayer } from './limits.ts'
import { openPool, type Pool } from './pools.ts'
import { type Route, routeRequests } from './routes.ts'
import type { OnStoreFault } from './store-faults.ts'
import { openStores } from './stores.ts'
import { trace } from './trace.ts'
import { within } from './within.ts'

/** Everything behind the listeners. */
export interface Pipelines {
  readonly handler: Handler
  /** Forgets what the caches of all routes hold of something, or makes it stale. Throws TypeError for a purge that names nothing or too much. */
  purge(purge: Purge): Promise<PurgeResult>
  /** Of the cache's tiers, nearest first; none where no route caches. */
  tierStats(): readonly TierStats[]
  /** Waits up to `graceMs` for what the cache is still fetching and writing, and lets go of every connection. */
  close(graceMs: number): Promise<void>
}

/** Makes the pipelines that a configuration describes, one per route. Throws `ConfigError` where a part refuses its settings. */
export async function composeProxy(settings: Settings, onStoreFault: OnStoreFault): Promise<Pipelines> {
  const pools = new Map<string, Pool>()
  for (const [name, pool] of Object.entries(settings.pools)) pools.set(name, await openPool(name, pool))
  const stores = await openStores(settings, onStoreFault)
  const limit = settings.rateLimit === undefined ? undefined : limitLayer(settings.rateLimit, stores.redis, (reason, error) => onStoreFault('redis', error ?? new Error(`rate limit: ${reason}`)))
  const auth = settings.auth === undefined ? undefined : authLayer(settings.auth)
  const caches: CacheMiddleware[] = []

  const routes = settings.routes.map((route): Route => {
    const layers: Middleware[] = []
    const limited = limit !== undefined && route.rateLimit !== false
    const byPrincipal = settings.rateLimit?.key === 'principal'
    if (limited && !byPrincipal) layers.push(limit)
    if (auth !== undefined && route.auth !== false) layers.push(auth)
    if (limited && byPrincipal) layers.push(limit)
    if (route.methods !== undefined) layers.push(allowMethods(route.methods))
    if (!isEmptyChange(route.responseHeaders) || !isEmptyChange({ set: route.responseHeaders.always, remove: [] })) layers.push(changeResponse(route.responseHeaders))
    if (settings.observability.cacheStatusHeader !== undefined) layers.push(showCacheResult(settings.observability.cacheStatusHeader))
    if (route.dropQuery) layers.push(dropQuery)
    if (!isEmptyChange(route.requestHeaders)) layers.push(changeRequest(route.requestHeaders))
    if (route.cache && stores.cache !== undefined) {
      const layer = cache({ store: stores.cache, namespace: namespaceOf(route), ...cacheOptions(settings), onStoreError: stores.onCacheError })
      caches.push(layer)
      layers.push(layer)
    }
    return { host: route.match.host, path: route.match.path, handler: compose(...layers)((pools.get(route.pool) as Pool).handler) }
  })

  return {
    handler: trace({ trustedProxies: settings.trustedProxies })(routeRequests(routes, settings.admin.prefix)),
    async purge(purge) {
      const results = await Promise.all(caches.map((layer) => layer.purge(purge)))
      return { touched: results.reduce((sum, { touched }) => sum + touched, 0) }
    },
    tierStats: () => stores.cache?.tierStats() ?? [],
    async close(graceMs) {
      await within(graceMs, Promise.all(caches.map((layer) => layer.drain())))
      await stores.close()
      await Promise.all([...pools.values()].map((pool) => pool.close()))
    }
  }
}

/** Routes never share entries: each may send other fields to the same pool. */
function namespaceOf({ pool, match }: RouteSettings): string {
  return `${pool}:${match.host ?? ''}${match.path}`
}

function cacheOptions({ cache }: Settings): Pick<Parameters<typeof import('@proxy/cache').cache>[0], 'ttl' | 'negative' | 'stale' | 'keepStaleMs' | 'heuristic' | 'targetedFields' | 'maxObjectBytes'> {
  const { connectError, ...statuses } = cache.negative
  const { stale, heuristic } = cache
  return {
    ttl: cache.rules.map(({ contentType, status, ttl }) => ({ ttlMs: ttl, ...(contentType !== undefined && { contentType }), ...(status !== undefined && { status: status as never }) })),
    negative: { statuses, ...(connectError !== undefined && { connectErrorMs: connectError }) },
    stale: { whileRevalidateMs: stale.whileRevalidate, ifUnreachableMs: stale.ifUnreachable, ifErrorMs: stale.ifError },
    keepStaleMs: stale.keep,
    heuristic: heuristic === false ? false : { fraction: heuristic.fraction, maxMs: heuristic.max },
    targetedFields: cache.targetedFields,
    maxObjectBytes: cache.maxObjectSize
  }
}
