import { type CacheMeta, type CacheStore, MemoryStore, type PurgeLog, type Tier } from '@proxy/cache'
import type { RedisConnection } from '@proxy/cache-redis'
import { type CacheStorage, cacheStorage } from './cache-store.ts'
import { checked } from './config/errors.ts'
import type { Settings } from './config/schema.ts'
import type { StoreSettings } from './config/schema-cache.ts'
import { type OpenedLog, openPurgeLog, outlivesProcess } from './purge-logs.ts'
import { OncePerFault, type OnStoreFault } from './store-faults.ts'
import { within } from './within.ts'

/** What is shared by all routes: the cache's store and the connection to Redis. */
export interface Stores {
  /** Undefined when no route caches. */
  readonly cache: CacheStorage | undefined
  /** Of all caches. */
  readonly purges: PurgeLog
  /** For the cache's `onStoreError`. */
  readonly onCacheError: (error: unknown) => void
  readonly redis: RedisConnection | undefined
  close(): Promise<void>
}

/** Longest wait at the start for the stores to be ready, all together: a server that is told to start does so, with its storage or without. */
const PREPARE_MS = 1500

const admits: Readonly<Record<string, ((meta: CacheMeta) => boolean) | undefined>> = {
  content: (meta) => meta.status < 400,
  negative: (meta) => meta.status >= 400
}

/** Opens the stores that the configuration uses. A service that is away is a cache that never hits: it does not keep the server from starting. */
export async function openStores(settings: Settings, onFault: OnStoreFault): Promise<Stores> {
  const caching = settings.routes.some(({ cache }) => cache !== false)
  const tierSettings = caching ? settings.cache.tiers : []
  const faults = new OncePerFault(onFault)
  const usesRedis = tierSettings.some(({ store }) => store === 'redis') || settings.rateLimit?.store === 'redis'
  const connecting = usesRedis ? await connect(settings.stores.redis as NonNullable<StoreSettings['redis']>, faults.ofStore) : undefined
  const redis = connecting?.connection
  const tiers: Tier[] = []
  // The first requests would find no connection, and go without.
  const ready: Promise<unknown>[] = connecting === undefined ? [] : [connecting.tried]
  let purges: OpenedLog
  try {
    const sweepsObjects = !outlivesProcess(tierSettings.map(({ store }) => store))
    for (const { store: name, admit } of tierSettings) {
      const keeps = admits[admit]
      const { store, prepared } = await openStore(name, settings.stores, redis, sweepsObjects, faults.ofStore)
      tiers.push({ name, store, ...(keeps !== undefined && { admit: keeps }) })
      ready.push(prepared)
    }
    purges = await openPurgeLog({ tiers: new Map(tiers.map(({ name, store }) => [name, store])), settings: settings.stores, redis: connecting, onFault: faults.ofStore })
    ready.push(purges.prepared)
  } catch (error) {
    // A connection that nobody closes would keep the process from ending.
    await Promise.all([...tiers.map(({ store }) => store.close()), redis?.close()])
    throw error
  }
  await within(PREPARE_MS, Promise.all(ready))
  const cache = tiers.length === 0 ? undefined : cacheStorage(tiers, faults.ofTier)
  return {
    cache,
    purges: purges.log,
    onCacheError: faults.ofCache,
    redis,
    async close() {
      await cache?.store.close()
      await purges.close()
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

interface OpenedStore {
  readonly store: CacheStore
  /** Resolves when it is ready for the first request, or known not to be. */
  readonly prepared: Promise<unknown>
}

const atOnce = Promise.resolve()

/** `sweepsObjects`: whether a purge is to be carried out in S3, a request for each object. */
async function openStore(name: string, stores: StoreSettings, redis: RedisConnection | undefined, sweepsObjects: boolean, onFault: OnStoreFault): Promise<OpenedStore> {
  if (name === 'redis') {
    const { RedisStore } = await import('@proxy/cache-redis')
    const { prefix, commandTimeout, maxEntrySize } = stores.redis as NonNullable<StoreSettings['redis']>
    const store = new RedisStore({ redis: (redis as RedisConnection).client, prefix, commandTimeoutMs: commandTimeout, maxEntryBytes: maxEntrySize, onFault: (error) => onFault('redis', error) })
    return { store, prepared: atOnce }
  }
  if (name === 'disk') {
    const { DiskStore } = await import('@proxy/store-disk')
    const { directory, maxSize, maxEntrySize, fsync } = stores.disk as NonNullable<StoreSettings['disk']>
    const store = checked(
      ['stores', 'disk'],
      () => new DiskStore({ directory, maxBytes: maxSize, ...(maxEntrySize !== undefined && { maxEntryBytes: maxEntrySize }), fsync, onFault: ({ error }) => onFault('disk', error) })
    )
    return { store, prepared: store.prepare().catch((error: unknown) => onFault('disk', error)) }
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
          ...(!sweepsObjects && { sweepConcurrency: 0 }),
          onFault: ({ error }) => onFault('s3', error)
        })
    )
    // Loading the driver would cost the first requests more than they wait for an object.
    return { store, prepared: store.prepare().catch((error: unknown) => onFault('s3', error)) }
  }
  const { maxSize, maxEntrySize, eviction } = stores.memory
  const store = checked(['stores', 'memory'], () => new MemoryStore({ maxBytes: maxSize, ...(maxEntrySize !== undefined && { maxEntryBytes: maxEntrySize }), eviction }))
  return { store, prepared: atOnce }
}
