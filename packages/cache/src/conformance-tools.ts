import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { type Body, type BodySink, createHeaders, type Flow, readAll, toSource } from '@proxy/pipeline'
import type { CacheEntry, CacheMeta, CacheStore } from './store.ts'

/** What a group of cases works with. */
export interface Cases {
  /** Registers a case, which gets a store of its own. */
  readonly check: (name: string, run: (store: CacheStore) => Promise<void>) => void
  /** Stores a body, and asserts that it was. */
  readonly put: (store: CacheStore, key: string, bytes: Buffer, meta?: CacheMeta, chunkBytes?: number) => Promise<void>
  readonly settled: (store: CacheStore) => Promise<void>
}

export const MAX = 64 * 1024 * 1024
let keys = 0
export const freshKey = (): string => `conformance|https://example.org/${process.pid}/${Date.now().toString(36)}/${++keys}?q=ä&x=%20`

/** A record as the cache makes it; `changes` replaces parts. */
export function sampleMeta(changes: Partial<CacheMeta> = {}): CacheMeta {
  const headers = createHeaders()
  headers['content-type'] = 'image/png'
  headers.etag = '"v1"'
  headers['set-cookie'] = ['a=1', 'b=2']
  headers['x-latin1'] = 'caf\u00e9'
  const now = Date.now()
  return {
    v: 1,
    url: 'https://example.org/a.png',
    namespace: 'default',
    status: 200,
    headers,
    requestTime: now - 20,
    responseTime: now,
    initialAgeMs: 1500,
    keepUntil: now + 3_600_000,
    tags: ['album-7', 'all'],
    ...changes
  }
}

/** Bytes that differ at every offset and between seeds. */
export function sampleBytes(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = (seed * 2654435761) >>> 0
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

export const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export async function write(store: CacheStore, key: string, bytes: Buffer, meta: CacheMeta = sampleMeta(), chunkBytes = 50_000): Promise<boolean> {
  const writer = store.put(key, meta)
  for (let at = 0; at < bytes.length; at += chunkBytes) if (!writer.write(bytes.subarray(at, at + chunkBytes))) await writer.drained()
  return writer.commit()
}

export async function mustGet(store: CacheStore, key: string): Promise<CacheEntry> {
  const entry = await store.get(key)
  assert.ok(entry, 'the entry is there')
  return entry
}

export async function bodyOf(store: CacheStore, key: string): Promise<Buffer> {
  return readAll(await (await mustGet(store, key)).open(), MAX)
}

/** Reads one chunk at a time, pausing after each: what a slow client does. */
export function readSlowly(body: Body): Promise<{ bytes: Buffer; largestBurst: number }> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = []
    let burst = 0
    let largestBurst = 0
    let flow: Flow | undefined
    const sink: BodySink = {
      data(chunk) {
        chunks.push(chunk)
        burst += chunk.byteLength
        largestBurst = Math.max(largestBurst, burst)
        setImmediate(() => {
          burst = 0
          flow?.resume()
        })
        return false
      },
      end: () => resolve({ bytes: Buffer.concat(chunks), largestBurst }),
      error: reject
    }
    flow = toSource(body).start(sink)
  })
}
