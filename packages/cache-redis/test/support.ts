import { createHash } from 'node:crypto'
import { tracingChannel } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CacheEntry, CacheMeta, CacheStore } from '@proxy/cache'
import { sampleMeta } from '@proxy/cache/conformance'
import { readAll } from '@proxy/pipeline'
import type { Redis } from 'ioredis'
import { onTestFinished } from 'vitest'
import { type ConnectRedisOptions, connectRedis } from '../src/connect.ts'
import type { RedisStoreOptions } from '../src/options.ts'
import { RedisStore } from '../src/redis-store.ts'

export const MAX = 64 * 1024 * 1024

let prefixes = 0
export const freshPrefix = (): string => `test-${process.pid}-${Date.now().toString(36)}-${++prefixes}:`

/** Long deadlines: for tests in which Redis is well, on a machine that may be busy. */
export const patient = { commandTimeoutMs: 20_000 }
export const patientConnection: ConnectRedisOptions = { commandTimeoutMs: 20_000, connectTimeoutMs: 20_000, socketTimeoutMs: 20_000 }

/** A client that is connected, closed after the test. */
export async function connected(url: string, options: ConnectRedisOptions = patientConnection): Promise<Redis> {
  const connection = connectRedis(url, options)
  onTestFinished(() => connection.close())
  if (!(await connection.ready(20_000))) throw new Error(`no connection to ${url}`)
  return connection.client
}

export async function createStore(url: string, options: Partial<RedisStoreOptions> = {}): Promise<{ store: RedisStore; redis: Redis; prefix: string }> {
  const prefix = options.prefix ?? freshPrefix()
  const redis = options.redis ?? (await connected(url))
  return { store: new RedisStore({ ...patient, ...options, redis, prefix }), redis, prefix }
}

export async function write(store: CacheStore, key: string, body: Uint8Array, changes: Partial<CacheMeta> = {}): Promise<boolean> {
  const writer = store.put(key, sampleMeta(changes))
  writer.write(body)
  return writer.commit()
}

export async function mustGet(store: CacheStore, key: string): Promise<CacheEntry> {
  const entry = await store.get(key)
  if (entry === undefined) throw new Error(`${key} is not there`)
  return entry
}

export async function bodyOf(store: CacheStore, key: string): Promise<Buffer> {
  return readAll(await (await mustGet(store, key)).open(), MAX)
}

export const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Waits until `condition` holds: for what other processes do. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const end = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await sleep(5)
  }
}

/** Counts the commands that this process writes to sockets from now on, until the test ends. */
export function countCommands(): { readonly names: string[] } {
  const names: string[] = []
  const subscribers = { start: (message: unknown) => void names.push((message as { command: string }).command) }
  const channel = tracingChannel('ioredis:command')
  const none = (): void => {}
  const all = { ...subscribers, end: none, asyncStart: none, asyncEnd: none, error: none }
  channel.subscribe(all)
  onTestFinished(() => channel.unsubscribe(all))
  return { names }
}
