import { setTimeout as sleep } from 'node:timers/promises'
import type { StoredMeta } from '@proxy/cache'
import type { SweptEntry } from '@proxy/cache/purging'
import { withDeadline } from './deadline.ts'
import { type S3Error, type S3FailureKind, toS3Error } from './errors.ts'
import { HEAD_BYTES, type ObjectHead, objectSize } from './frame.ts'
import { IncomingObject } from './incoming.ts'
import type { ObjectClient } from './object-client.ts'
import type { ResolvedOptions } from './options.ts'
import { metaOf } from './reader.ts'

/** What holds nearly every head: the rest is asked for where that is not enough. */
const FIRST_BYTES = 4 * 1024
/** A request that fails is made again so often, a second apart. */
const TRIES = 6
const PAUSE_MS = 1000
/** Trying again cannot help. */
const final: ReadonlySet<S3FailureKind> = new Set(['auth', 'no-bucket', 'unsupported', 'refused'])
/** The object is gone, is another one by now, or has no bytes at all. */
const absent: ReadonlySet<S3FailureKind> = new Set(['not-found', 'changed', 'range'])

export interface WalkHost {
  readonly client: ObjectClient
  readonly options: ResolvedOptions
  readonly isClosed: () => boolean
}

interface Looked {
  readonly etag: string
  readonly meta: StoredMeta
}

/**
 * Goes through all objects with the store's prefix, reads the head of each (a listing does not bring it) and removes what `find` says: one request for a thousand
 * names, one for each object and two for each that is removed, `sweepConcurrency` at a time. Rejects when the storage is away for long; ends early when the store
 * is closed. It has no part in the store's breakers: a storage that it is too much for goes on serving.
 */
export async function walkObjects(host: WalkHost, find: (meta: StoredMeta) => SweptEntry | undefined): Promise<void> {
  const { client, options } = host
  let from: string | undefined
  do {
    const page = await persistently(host, () => client.list(options.prefix, from))
    if (page === undefined) return
    const names = page.names.values()
    const failures: unknown[] = []
    const worker = async (): Promise<void> => {
      for (const name of names) {
        if (failures.length > 0 || host.isClosed()) return
        await visit(host, name, find).catch((error: unknown) => failures.push(error))
      }
    }
    await Promise.all(Array.from({ length: options.sweepConcurrency }, worker))
    if (failures.length > 0) throw failures[0]
    from = page.next
  } while (from !== undefined)
}

async function visit(host: WalkHost, name: string, find: (meta: StoredMeta) => SweptEntry | undefined): Promise<void> {
  const { client } = host
  const looked = await persistently(host, () => look(host, name))
  if (looked === undefined) return
  const found = find(looked.meta)
  if (found === undefined) return
  if (found.remove) {
    const removed = await persistently(host, async () => {
      // Asked first, because most servers do not know conditional deletes.
      if ((await client.head(name)) !== looked.etag) return false
      await client.remove(name, looked.etag)
      return true
    })
    if (removed !== true) return
  }
  found.counted()
}

/** The metadata of an object as of its last touch; undefined for one that is not ours, or not whole, which is left to whoever reads it. */
async function look({ client, options }: WalkHost, name: string): Promise<Looked | undefined> {
  for (const bytes of [FIRST_BYTES, HEAD_BYTES]) {
    const fetched = await withDeadline(
      options.requestTimeoutMs,
      undefined,
      (signal) => fetchHead(client, options, name, bytes, signal),
      () => {}
    )
    const { head, etag, size, metadata } = fetched
    if (typeof head !== 'string') {
      const meta = objectSize(head) === size ? metaOf(head, metadata) : undefined
      return meta?.v === 1 && meta.keepUntil > options.clock.wallMs() ? { etag, meta } : undefined
    }
    if (head === 'unknown' || size <= bytes) return undefined
  }
  return undefined
}

interface FetchedHead {
  readonly head: ObjectHead | 'broken' | 'unknown'
  readonly etag: string
  readonly size: number
  readonly metadata: Readonly<Record<string, string>>
}

async function fetchHead(client: ObjectClient, options: ResolvedOptions, name: string, bytes: number, signal: AbortSignal): Promise<FetchedHead> {
  const { stream, etag, size, metadata, bytes: coming } = await client.get(name, { range: { start: 0, end: bytes - 1 }, signal, inBackground: true })
  const incoming = new IncomingObject(stream, options.idleTimeoutMs, () => {})
  const head = await incoming.readHead()
  // A server that knows no ranges sends everything.
  if (coming <= bytes) incoming.drain()
  else incoming.abort()
  return { head, etag, size, metadata }
}

/** Undefined for what is not there any more, and when the store is closed. */
async function persistently<T>({ isClosed }: WalkHost, act: () => Promise<T>): Promise<T | undefined> {
  for (let tries = 1; ; tries++) {
    if (isClosed()) return undefined
    try {
      return await act()
    } catch (thrown) {
      const error: S3Error = toS3Error(thrown)
      if (absent.has(error.kind) || isClosed()) return undefined
      if (final.has(error.kind) || tries === TRIES) throw error
      await sleep(PAUSE_MS, undefined, { ref: false })
    }
  }
}
