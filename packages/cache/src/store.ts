import type { Body, ByteRange, HeaderMap } from '@proxy/pipeline'
import type { BreakerState } from '@proxy/pipeline/breaker'

/**
 * Where responses are kept. Stores are dumb: keys are opaque, times are absolute, and nothing here knows freshness, Vary or collapsing.
 * They own integrity: what `CacheEntry.open` delivers is what was written under that version, verified block by block before it is handed out, or an error.
 *
 * A store that cannot answer rejects; callers treat that as a miss. It never throws synchronously, never emits, and no operation waits longer than the
 * store's own deadline: one that cannot promise the last is not `guarded`, and goes behind `tiered()`. `@proxy/cache/conformance` holds the suite that every store passes.
 */
export interface CacheStore {
  /** True where the store keeps every operation within a deadline, stops asking what does not answer, and bounds the bytes that its writes hold. For others `tiered()` does it. */
  readonly guarded?: boolean
  /** The committed entry under `key`, or undefined. `want.body` says what will be read, so that one round trip can bring both. */
  get(key: string, want?: GetOptions): Promise<CacheEntry | undefined>
  /** Starts a write. Nothing of it is visible before `commit` has resolved to true; it then replaces what was there. Never throws: a store that cannot write gives a writer whose commit resolves to false. */
  put(key: string, meta: CacheMeta): CacheWriter
  /** Replaces the metadata of an entry after a 304, leaving its body; false when `version` is no longer the one stored (a newer put wins). `meta.length` is ignored. */
  touch(key: string, version: string, meta: CacheMeta): Promise<boolean>
  /** Removes the entry, or only that version of it. Resolves to whether there was something to remove. */
  delete(key: string, version?: string): Promise<boolean>
  /**
   * Removes every entry for which `matches` says so, or (`keep`) only counts them, in the background and without holding anybody up. Resolves to how many they
   * were; rejects when it could not see all of them. Absent where a store cannot be walked through: purges hold without it.
   */
  sweep?(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number>
  /** Waits for writes under way, within the store's own deadline, and lets go of connections and timers. The store is not used afterwards. */
  close(): Promise<void>
  /** What it knows of itself without looking. */
  stats?(): StoreStats
}

/** Each where the store can tell. */
export interface StoreStats {
  /** Entries it holds. */
  readonly entries?: number
  /** Bytes it holds. */
  readonly bytes?: number
  /** Entries that had to go for want of room. */
  readonly evictions?: number
  /** Bytes of writes that are not settled. */
  readonly pendingBytes?: number
  /** Operations without an answer in time. */
  readonly timeouts?: number
  /** Whether it asks what it stands on at all. */
  readonly readBreaker?: BreakerState
  /** The same for writes, which may rest while lookups go on. */
  readonly writeBreaker?: BreakerState
}

export interface GetOptions {
  /** What the caller will read: nothing, everything (default), or a part. A hint: `open` may still ask for something else. */
  readonly body?: 'none' | 'all' | ByteRange
  /** Gives up waiting; the get then rejects or resolves to undefined. */
  readonly signal?: AbortSignal
}

/** A committed response. Exactly one of `open` and `discard` is called, once. */
export interface CacheEntry {
  /** Differs from every other write of the same key; unchanged by `touch`. */
  readonly version: string
  /** Never changed by its reader. `length` is always set. */
  readonly meta: StoredMeta
  /** The body, or the part of it that lies in `range` (an end beyond the body is cut to it; a start beyond it rejects with RangeError). Rejects when the bytes are gone or broken: a miss. */
  open(range?: ByteRange): Promise<Body>
  discard(): void
}

/** One write. After `abort`, or once the write has failed, `write` takes bytes and forgets them, and `commit` resolves to false. */
export interface CacheWriter {
  /** Hands over a chunk, which must not change afterwards. False asks the caller to wait for `drained`. */
  write(chunk: Uint8Array): boolean
  /** Resolves when more may be written; never rejects. */
  drained(): Promise<void>
  /** Makes the entry visible. False when it could not be stored: full, too large, unreachable, or not as long as `meta.length` said. Never rejects. */
  commit(): Promise<boolean>
  abort(): void
  /** True once it is known that `commit` will resolve to false. Absent where a store cannot tell before. */
  readonly failed?: boolean | undefined
  /** The bytes written so far from `offset` on, and those still to come; ends after commit was called, fails after abort. Absent where a store cannot read what is not committed. */
  readonly readFrom?: ((offset: number) => Body) | undefined
}

/** What is known of a response apart from its body. Plain JSON data. Wall-clock times in milliseconds since 1970. */
export interface CacheMeta {
  /** Format of this record. Another number is a miss. */
  readonly v: 1
  /** Names this response among all that were ever put; kept by `touch`. By it a reader of one response knows that what it finds under the key later is still that. */
  readonly id?: string
  /** Scheme, authority and target as requested, for purging and admin listings. */
  readonly url: string
  /** The route or pool whose cache this is. */
  readonly namespace: string
  readonly status: number
  /** As received from the origin, without hop-by-hop fields, Age and Content-Length. */
  readonly headers: Readonly<HeaderMap>
  /** When the request was sent and when the answer's header arrived (RFC 9111 section 4.2.3). */
  readonly requestTime: number
  readonly responseTime: number
  /** corrected_initial_age of RFC 9111 section 4.2.3, at `responseTime`. */
  readonly initialAgeMs: number
  /** The cache's own lifetime of what no origin has sent, from `responseTime`: whatever the fields say and rules give. Milliseconds. */
  readonly ttlMs?: number
  /** After this time no policy can use the entry any more: a store may drop it. */
  readonly keepUntil: number
  /** Present on a base record that has no body of its own: variants lie under keys derived from the values of these fields. */
  readonly vary?: VaryIndex
  /** Surrogate keys, for purging by tag. */
  readonly tags: readonly string[]
  /** Bytes of the body, when known before it was read. */
  readonly length?: number
}

export interface VaryIndex {
  /** Lower-case field names, sorted. */
  readonly fields: readonly string[]
  /** Part of every variant's key: replacing the base record forgets all variants at once. */
  readonly generation: string
}

export interface StoredMeta extends CacheMeta {
  readonly length: number
}
