import { type CacheStore, MemoryPurgeLog, type PurgeLog } from '@proxy/cache'
import type { RedisConnection } from '@proxy/cache-redis'
import type { DiskStore } from '@proxy/store-disk'
import type { StoreSettings } from './config/schema-cache.ts'
import type { OnStoreFault } from './store-faults.ts'

/** The log of purges that all caches share. */
export interface OpenedLog {
  readonly log: PurgeLog
  /** Resolves when it has been read, or cannot be for now. */
  readonly prepared: Promise<unknown>
  close(): Promise<void>
}

export interface PurgeLogParts {
  /** The stores in use, by name. */
  readonly tiers: ReadonlyMap<string, CacheStore>
  readonly settings: StoreSettings
  readonly redis: { readonly connection: RedisConnection; readonly tried: Promise<unknown> } | undefined
  readonly onFault: OnStoreFault
}

/** Whether a purge holds after a restart by the log alone, so that no store has to be walked through for it. */
export function outlivesProcess(tiers: Iterable<string>): boolean {
  return [...tiers].some((name) => name === 'redis' || name === 'disk')
}

/** Where entries outlive the process, purges do: in Redis, for all processes that share it, else on the disk beside the entries. */
export async function openPurgeLog({ tiers, settings, redis, onFault }: PurgeLogParts): Promise<OpenedLog> {
  if (tiers.has('redis') && redis !== undefined) {
    const { RedisPurgeLog } = await import('@proxy/cache-redis')
    const { prefix } = settings.redis as NonNullable<StoreSettings['redis']>
    const log = new RedisPurgeLog({ redis: redis.connection.client, key: `${prefix}purges`, onFault: (error) => onFault('redis', error) })
    // Whatever kept it from being read has been told: by the log, or by the connection.
    return { log, prepared: redis.tried.then(() => log.prepare()).catch(() => {}), close: () => log.close() }
  }
  const disk = tiers.get('disk')
  if (disk !== undefined) {
    const { DiskPurgeLog } = await import('@proxy/store-disk')
    const { directory } = settings.disk as NonNullable<StoreSettings['disk']>
    const log = new DiskPurgeLog({ directory, store: disk as DiskStore, onFault: ({ error }) => onFault('disk', error) })
    // Told by the log, too.
    return { log, prepared: log.prepare().catch(() => {}), close: () => log.close() }
  }
  return { log: new MemoryPurgeLog(), prepared: Promise.resolve(), close: () => Promise.resolve() }
}
