import { type CacheMiddleware, type CacheOptions, cache, type PreloadOptions, type PreloadSummary, type Purge, type PurgeResult, preload, type TierStats } from '@proxy/cache'
import { compose, createHeaders, type Handler, type Middleware } from '@proxy/pipeline'
import { authLayer } from './access.ts'
import type { RouteSettings, Settings } from './config/schema.ts'
import { type CachePolicy, policyOf } from './config/schema-cache.ts'
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
  /** Forgets what the caches of all routes hold of something, or makes it stale. Rejects with TypeError for a purge that names nothing or too much, and with ProxyError when it counts in this process but could not be recorded. */
  purge(purge: Purge): Promise<PurgeResult>
  readonly cacheStats: () => { readonly variantsRefused: number }
  /** Answers with why the cache would do what it would do with a request, as JSON. */
  readonly explain: Handler
  /** Fetches URLs into the cache: past who is let in and how often, as it is the server that asks. */
  preload(urls: readonly string[], options: PreloadOptions): Promise<PreloadSummary>
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
  const admitted: Route[] = []
  const explaining: Route[] = []

  const routes = settings.routes.map((route): Route => {
    const admission: Middleware[] = []
    const answering: Middleware[] = []
    const changing: Middleware[] = []
    const limited = limit !== undefined && route.rateLimit !== false
    const byPrincipal = settings.rateLimit?.key === 'principal'
    if (limited && !byPrincipal) admission.push(limit)
    if (auth !== undefined && route.auth !== false) admission.push(auth)
    if (limited && byPrincipal) admission.push(limit)
    if (route.methods !== undefined) answering.push(allowMethods(route.methods))
    if (!isEmptyChange(route.responseHeaders) || !isEmptyChange({ set: route.responseHeaders.always, remove: [] })) answering.push(changeResponse(route.responseHeaders))
    if (settings.observability.cacheStatusHeader !== undefined) answering.push(showCacheResult(settings.observability.cacheStatusHeader))
    if (route.dropQuery) changing.push(dropQuery)
    if (!isEmptyChange(route.requestHeaders)) changing.push(changeRequest(route.requestHeaders))
    let layer: CacheMiddleware | undefined
    if (route.cache !== false && stores.cache !== undefined) {
      const policy = route.cache === true ? settings.cache : policyOf(settings.cache, route.cache)
      layer = cache({
        store: stores.cache.store,
        namespace: namespaceOf(route),
        ...cacheOptions(policy),
        ...(settings.observability.cacheDebugHeader !== undefined && { debugHeader: settings.observability.cacheDebugHeader }),
        purgeLog: stores.purges,
        onStoreError: stores.onCacheError
      })
      caches.push(layer)
    }
    const { host, path } = route.match
    const handler = compose(...answering, ...changing, ...(layer === undefined ? [] : [layer]))((pools.get(route.pool) as Pool).handler)
    admitted.push({ host, path, handler })
    explaining.push({ host, path, handler: compose(...changing)(explanation(layer, namespaceOf(route))) })
    return { host, path, handler: compose(...admission)(handler) }
  })
  const { prefix } = settings.admin

  return {
    handler: trace({ trustedProxies: settings.trustedProxies })(routeRequests(routes, prefix)),
    cacheStats: () => ({ variantsRefused: caches.reduce((sum, layer) => sum + layer.stats().variantsRefused, 0) }),
    explain: routeRequests(explaining, prefix),
    preload: (urls, options) => preload(routeRequests(admitted, prefix), urls, options),
    async purge(purge) {
      const results = await Promise.all(caches.map((layer) => layer.purge(purge)))
      const touched = results.reduce((sum, result) => sum + result.touched, 0)
      return results.some(({ partial }) => partial) ? { touched, partial: true } : { touched }
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

/** Tells what would be done with a request that has come as far as the cache. */
function explanation(layer: CacheMiddleware | undefined, namespace: string): Handler {
  return async (request) => {
    const explained = layer === undefined ? { decision: 'pass', because: 'route', namespace } : await layer.explain(request)
    const headers = createHeaders()
    headers['content-type'] = 'application/json'
    return { status: 200, headers, body: Buffer.from(JSON.stringify(explained)) }
  }
}

function cacheOptions(policy: CachePolicy): Omit<CacheOptions, 'store' | 'purgeLog'> {
  const { connectError, ...statuses } = policy.negative
  const { contentTypes, heuristic, maxTtl, stale } = policy
  return {
    key: definedOnly(policy.key),
    bypass: policy.bypass.map(definedOnly),
    originDirectives: policy.originDirectives,
    requestDirectives: policy.requestDirectives,
    minTtlMs: policy.minTtl,
    ...(maxTtl !== undefined && { maxTtlMs: maxTtl }),
    ...(contentTypes !== undefined && { contentTypes }),
    setCookie: policy.setCookie,
    rangeMiss: policy.rangeMiss,
    maxVariants: policy.maxVariants,
    ttl: policy.rules.map(({ contentType, status, ttl }) => ({ ttlMs: ttl, ...(contentType !== undefined && { contentType }), ...(status !== undefined && { status: status as never }) })),
    negative: { statuses, ...(connectError !== undefined && { connectErrorMs: connectError }) },
    stale: { whileRevalidateMs: stale.whileRevalidate, ifUnreachableMs: stale.ifUnreachable, ifErrorMs: stale.ifError },
    keepStaleMs: stale.keep,
    heuristic: heuristic === false ? false : { fraction: heuristic.fraction, maxMs: heuristic.max },
    targetedFields: policy.targetedFields,
    maxObjectBytes: policy.maxObjectSize
  }
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> }

function definedOnly<T extends object>(given: T): Defined<T> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Defined<T>
}
