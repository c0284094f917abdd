import type { RedisConnection } from '@proxy/cache-redis'
import type { Middleware } from '@proxy/pipeline'
import { byClientAddress, byHeader, byPrincipal, type Limiter, type MemoryLimiter, rateLimit, slidingWindow, tokenBucket } from '@proxy/ratelimit'
import { redisSlidingWindow, redisTokenBucket } from '@proxy/ratelimit/redis'
import type { RateLimitSettings } from './config/schema-access.ts'

/** One limit for all routes that have it: what a client takes on one of them is taken on all. */
export function limitLayer(settings: RateLimitSettings, redis: RedisConnection | undefined, onFault: (reason: string, error: unknown) => void): Middleware {
  const { key, headers } = settings
  return rateLimit({
    limiter: createLimiter(settings, redis, onFault),
    key: key === 'client-address' ? byClientAddress() : key === 'principal' ? byPrincipal() : byHeader(key.header),
    headers
  })
}

/** In Redis where the settings say so and there is one, else in memory. Throws RangeError for rates and times that are out of all proportion. */
export function createLimiter(settings: RateLimitSettings, redis?: RedisConnection, onFault?: (reason: string, error: unknown) => void): Limiter | MemoryLimiter {
  const { maxKeys, onError } = settings
  const shared = settings.store === 'redis' && redis !== undefined ? { client: redis.client, maxKeys, onError, ...(onFault !== undefined && { onFault }) } : undefined
  if (settings.algorithm === 'token-bucket') {
    const bucket = { rate: settings.rate, perMs: settings.per, burst: settings.burst }
    return shared === undefined ? tokenBucket({ ...bucket, maxKeys }) : redisTokenBucket({ ...bucket, ...shared })
  }
  const window = { limit: settings.limit, windowMs: settings.window }
  return shared === undefined ? slidingWindow({ ...window, maxKeys }) : redisSlidingWindow({ ...window, ...shared })
}
