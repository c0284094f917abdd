import { setTimeout as sleep } from 'node:timers/promises'
import type { StoredMeta } from '@proxy/cache'
import type { SweptEntry } from '@proxy/cache/purging'
import type { Redis } from 'ioredis'
import { replyCode } from './errors.ts'
import type { GuardedClient } from './guarded-client.ts'
import { decodeHead, HEAD_FIELDS } from './layout.ts'
import { DELETE_VERSION } from './scripts.ts'

/** Entries looked at with one round trip: so few that nobody else waits for it, here or in Redis. */
const BATCH = 100
/** A Redis that does not answer is asked again so often, a second apart. */
const TRIES = 6
const PAUSE_MS = 1000

/**
 * Goes through all keys with `prefix` (SCAN), reads their metadata and removes what `find` says. An entry that is there from the beginning to the end is seen, at
 * times twice. Rejects when Redis is away for long; ends early when the client is closed.
 */
export async function walkEntries(guard: GuardedClient, prefix: string, find: (meta: StoredMeta) => SweptEntry | undefined): Promise<void> {
  const pattern = `${prefix.replace(/[\\*?[\]^]/g, '\\$&')}*`
  let cursor = '0'
  do {
    const scanned = await persistently(guard, (client) => client.scanBuffer(cursor, 'MATCH', pattern, 'COUNT', BATCH))
    if (scanned === undefined || !(await visit(guard, scanned[1], find))) return
    cursor = scanned[0].toString()
  } while (cursor !== '0')
}

interface Found {
  readonly name: Buffer
  readonly version: string
  readonly entry: SweptEntry
}

/** False when the client is closed. */
async function visit(guard: GuardedClient, names: readonly Buffer[], find: (meta: StoredMeta) => SweptEntry | undefined): Promise<boolean> {
  for (let at = 0; at < names.length; at += BATCH) {
    const batch = names.slice(at, at + BATCH)
    const heads = await persistently(guard, (client) => readHeads(client, batch))
    if (heads === undefined) return false
    const removals: Found[] = []
    for (const [i, head] of heads.entries()) {
      const found = foundIn(batch[i] as Buffer, head, find)
      if (found?.entry.remove) removals.push(found)
      else found?.entry.counted()
    }
    if (!(await remove(guard, removals))) return false
  }
  return true
}

/** The head fields of each key; undefined for what is no hash, and so none of ours. */
async function readHeads(client: Redis, names: readonly Buffer[]): Promise<((Buffer | null)[] | undefined)[]> {
  const pipeline = client.pipeline()
  for (const name of names) pipeline.hmgetBuffer(name, ...HEAD_FIELDS)
  return ((await pipeline.exec()) ?? []).map(([error, fields]) => {
    if (error === null) return fields as (Buffer | null)[]
    if (replyCode(error.message) !== 'WRONGTYPE') throw error
    return undefined
  })
}

function foundIn(name: Buffer, fields: readonly (Buffer | null)[] | undefined, find: (meta: StoredMeta) => SweptEntry | undefined): Found | undefined {
  const [version, meta, checksum] = fields ?? []
  const head = version ? decodeHead(version, meta ?? null, checksum ?? null) : 'unknown'
  if (typeof head === 'string') return undefined
  const entry = find(head.meta)
  return entry && { name, version: head.version, entry }
}

async function remove(guard: GuardedClient, removals: readonly Found[]): Promise<boolean> {
  if (removals.length === 0) return true
  const removed = await persistently(guard, (client) => {
    const pipeline = client.pipeline()
    for (const { name, version } of removals) pipeline.eval(DELETE_VERSION, 1, name, version)
    return pipeline.exec()
  })
  // What could not be removed, or is another version by now, is judged when it is found.
  for (const [i, [, count]] of (removed ?? []).entries()) if (count === 1) removals[i]?.entry.counted()
  return removed !== undefined
}

/** Undefined when the client is closed. */
async function persistently<T>(guard: GuardedClient, send: (client: Redis) => Promise<T>): Promise<T | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      return await guard.run(send)
    } catch (error) {
      if (guard.closed) return undefined
      if (tries === TRIES) throw error
      await sleep(PAUSE_MS, undefined, { ref: false })
    }
  }
}
