import { createBalancer } from '@proxy/balancer'
import { TrustedProxies } from '@proxy/pipeline'
import { z } from 'zod'
import { authLayer } from '../access.ts'
import { createLimiter } from '../limits.ts'
import { checkAuth } from './check-auth.ts'
import { ConfigError, type ConfigIssue, checked, type KeyPath, toIssues } from './errors.ts'
import { configSchema, type RouteSettings, routeSchema, type Settings } from './schema.ts'
import { type CachePolicy, policyOf } from './schema-cache.ts'
import { closest, type KeySchema, knownKeys } from './suggest.ts'
import { resolveTiers } from './tiers.ts'

let keySchema: KeySchema | undefined

function suggestKey(path: KeyPath, key: string): string | undefined {
  keySchema ??= z.toJSONSchema(configSchema, { io: 'input', reused: 'inline' }) as KeySchema
  return closest(key, knownKeys(keySchema, path))
}

/** Checks a configuration and fills in the defaults. Throws `ConfigError` with everything that is wrong. */
export function resolveConfig(config: unknown): Settings {
  const result = configSchema.safeParse(config ?? {})
  if (!result.success) throw new ConfigError(toIssues(result.error, config ?? {}, suggestKey))
  const settings = result.data
  const issues: ConfigIssue[] = []
  const report = (path: KeyPath, message: string): void => {
    issues.push({ path, message })
  }
  const trial = (path: KeyPath, make: () => unknown): void => {
    try {
      checked(path, make)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      issues.push(...error.issues)
    }
  }

  const poolNames = Object.keys(settings.pools)
  const [onlyPool] = poolNames
  if (onlyPool === undefined) report(['pools'], 'needs at least one pool')
  if (settings.routes === undefined && poolNames.length > 1) report(['routes'], 'is missing: with more than one pool, routes say which requests go where')
  const routes = settings.routes ?? (onlyPool === undefined ? [] : [routeToAll(onlyPool)])

  for (const [index, entry] of settings.trustedProxies.entries()) trial(['trustedProxies', index], () => new TrustedProxies([entry]))
  for (const [index, entry] of settings.admin.allow.entries()) if (entry !== 'loopback') trial(['admin', 'allow', index], () => new TrustedProxies([entry]))
  for (const [name, pool] of Object.entries(settings.pools))
    trial(['pools', name, 'targets'], () => createBalancer({ targets: pool.targets.map(({ url, weight, name }) => ({ origin: url, weight, ...(name !== undefined && { name }) })) }))
  const { auth } = settings
  if (auth !== undefined) {
    const before = issues.length
    checkAuth(auth, trial)
    // What no single secret is to blame for: the realm, a name that is a secret.
    if (issues.length === before) trial(['auth'], () => authLayer(auth))
  }
  if (settings.rateLimit !== undefined) trial(['rateLimit'], () => createLimiter(settings.rateLimit as NonNullable<Settings['rateLimit']>))

  checkRoutes(routes, settings, poolNames, report)
  checkBounds(['cache'], settings.cache, report)
  for (const [index, { cache }] of routes.entries()) if (typeof cache === 'object') checkBounds(['routes', index, 'cache'], policyOf(settings.cache, cache), report)

  const tiers = resolveTiers(settings, report)
  if (settings.rateLimit?.store === 'redis' && settings.stores.redis === undefined) report(['rateLimit', 'store'], 'the store "redis" is not configured: stores.redis is missing')
  if (issues.length > 0) throw new ConfigError(issues)
  return { ...settings, routes, cache: { ...settings.cache, tiers: [...tiers] } }
}

function checkBounds(path: KeyPath, { minTtl, maxTtl }: CachePolicy, report: (path: KeyPath, message: string) => void): void {
  if (maxTtl !== undefined && minTtl > maxTtl) report([...path, 'minTtl'], `is above maxTtl`)
}

function routeToAll(pool: string): RouteSettings {
  return routeSchema.parse({ pool })
}

function checkRoutes(routes: readonly RouteSettings[], settings: z.output<typeof configSchema>, poolNames: readonly string[], report: (path: KeyPath, message: string) => void): void {
  const matches = new Map<string, number>()
  const { prefix } = settings.admin
  for (const [index, route] of routes.entries()) {
    const { host, path } = route.match
    if (!poolNames.includes(route.pool) && poolNames.length > 0) {
      const meant = closest(route.pool, poolNames)
      report(['routes', index, 'pool'], `there is no pool "${route.pool}"${meant === undefined ? `; pools are ${poolNames.join(', ')}` : `; did you mean "${meant}"?`}`)
    }
    if (path === prefix || path.startsWith(`${prefix}/`)) report(['routes', index, 'match', 'path'], `lies below ${prefix}, which is the server's own (admin.prefix)`)
    const match = `${host ?? ''} ${path}`
    const first = matches.get(match)
    if (first !== undefined) report(['routes', index, 'match'], `is the same as that of routes[${first}]`)
    else matches.set(match, index)
    if (route.auth === true && settings.auth === undefined) report(['routes', index, 'auth'], 'nobody could be let in: the section auth is missing')
    if (route.rateLimit === true && settings.rateLimit === undefined) report(['routes', index, 'rateLimit'], 'there is no limit: the section rateLimit is missing')
  }
}
