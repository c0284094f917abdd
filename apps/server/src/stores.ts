import { type CacheMeta, type CacheStore, MemoryStore, type Tier, tiered } from '@proxy/cache'
import type { RedisConnection } from '@proxy/cache-redis'
import { checked } from './config/errors.ts'
import type { Settings } from './config/schema.ts'
import type { StoreSettings } from './config/schema-cache.ts'
import { within } from './within.ts'

/** Told of each failure of a store that requests were served without. */
export type OnStoreFault = (store: string, error: unknown) => void

/** What is shared by all routes: the cache's store and the connection to Redis. */
export interface Stores {
  /** Undefined when no route caches. */
  readonly cache: CacheStore | undefined
  /** What a failure of it is counted for: the name of the only store, else `tiers`. */
  readonly cacheName: string
  readonly redis: RedisConnection | undefined
  close(): Promise<void>
}

/** Longest wait at the start for a store to be ready: a server that is told to start does so, with its storage or without. */
const PREPARE_MS = 1500

const admits: Readonly<Record<string, ((meta: CacheMeta) => boolean) | undefined>> = {
  content: (meta) => meta.status < 400,
  negative: (meta) => meta.status >= 400
}

/** Opens the stores that the configuration uses. A service that is away is a cache that never hits: it does not keep the server from starting. */
export async function openStores(settings: Settings, onFault: OnStoreFault): Promise<Stores> {
  const caching = settings.routes.some(({ cache }) => cache)
  const tierNames = caching ? settings.cache.tiers.map(({ store }) => store) : []
  const connecting = tierNames.includes('redis') || settings.rateLimit?.store === 'redis' ? await connect(settings.stores.redis as NonNullable<StoreSettings['redis']>, onFault) : undefined
  const redis = connecting?.connection
  const tiers: Tier[] = []
  try {
    for (const { store, admit } of caching ? settings.cache.tiers : []) {
      const keeps = admits[admit]
      tiers.push({ name: store, store: await openStore(store, settings.stores, redis, onFault), ...(keeps !== undefined && { admit: keeps }) })
    }
  } catch (error) {
    // A connection that nobody closes would keep the process from ending.
    await redis?.close()
    throw error
  }
  // The first requests would find no connection and go without.
  await connecting?.tried
  const cache = tiers.length === 0 ? undefined : tiers.length === 1 && tiers[0]?.admit === undefined ? tiers[0]?.store : tiered(tiers, { onTierError: onFault })
  return {
    cache,
    cacheName: tiers.length === 1 ? (tiers[0] as Tier).name : 'tiers',
    redis,
    async close() {
      await cache?.close()
      await redis?.close()
    }
  }
}

interface Connecting {
  readonly connection: RedisConnection
  /** Resolves when the first attempt has succeeded or failed, or has taken too long. */
  readonly tried: Promise<unknown>
}

/** The drivers are loaded when they are needed: the one of S3 alone takes a quarter of a second and 35 MB. */
async function connect({ url, commandTimeout, connectTimeout }: NonNullable<StoreSettings['redis']>, onFault: OnStoreFault): Promise<Connecting> {
  const { connectRedis } = await import('@proxy/cache-redis')
  const { promise: refused, resolve: onRefused } = Promise.withResolvers<void>()
  const connection = checked(['stores', 'redis', 'url'], () =>
    connectRedis(url, {
      commandTimeoutMs: commandTimeout,
      connectTimeoutMs: connectTimeout,
      connectionName: 'proxy-server',
      onFault(error) {
        onRefused()
        onFault('redis', error)
      }
    })
  )
  return { connection, tried: Promise.race([connection.ready(Math.min(connectTimeout, PREPARE_MS)), refused]) }
}

async function openStore(name: string, stores: StoreSettings, redis: RedisConnection | undefined, onFault: OnStoreFault): Promise<CacheStore> {
  if (name === 'redis') {
    const { RedisStore } = await import('@proxy/cache-redis')
    const { prefix, commandTimeout, maxEntrySize } = stores.redis as NonNullable<StoreSettings['redis']>
    return new RedisStore({ redis: (redis as RedisConnection).client, prefix, commandTimeoutMs: commandTimeout, maxEntryBytes: maxEntrySize, onFault: (error) => onFault('redis', error) })
  }
  if (name === 's3') {
    const { S3Store } = await import('@proxy/store-s3')
    const { bucket, endpoint, region, accessKeyId, secretAccessKey, prefix, pathStyle, createBucket, firstByteTimeout, requestTimeout, maxEntrySize } = stores.s3 as NonNullable<StoreSettings['s3']>
    const store = checked(
      ['stores', 's3'],
      () =>
        new S3Store({
          bucket,
          ...(endpoint !== undefined && { endpoint }),
          ...(region !== undefined && { region }),
          ...(accessKeyId !== undefined && { accessKeyId }),
          ...(secretAccessKey !== undefined && { secretAccessKey }),
          ...(prefix !== undefined && { prefix }),
          ...(pathStyle !== undefined && { forcePathStyle: pathStyle }),
          createBucket,
          firstByteTimeoutMs: firstByteTimeout,
          requestTimeoutMs: requestTimeout,
          maxEntryBytes: maxEntrySize,
          onFault: ({ error }) => onFault('s3', error)
        })
    )
    // Loading the driver would cost the first requests more than they wait for an object.
    await within(
      PREPARE_MS,
      store.prepare().catch((error: unknown) => onFault('s3', error))
    )
    return store
  }
  const { maxSize, maxEntrySize } = stores.memory
  return checked(['stores', 'memory'], () => new MemoryStore({ maxBytes: maxSize, ...(maxEntrySize !== undefined && { maxEntryBytes: maxEntrySize }) }))
}
