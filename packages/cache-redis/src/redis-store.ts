import { randomBytes } from 'node:crypto'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta } from '@proxy/cache'
import { BLOCK_BYTES } from '@proxy/cache/blocks'
import { Sweeps } from '@proxy/cache/purging'
import { type Clock, type ProxyError, systemClock, toProxyError } from '@proxy/pipeline'
import { type Breaker, createBreaker } from '@proxy/pipeline/breaker'
import { redisError } from './errors.ts'
import { GuardedClient } from './guarded-client.ts'
import { type DecodedHead, decodeHead, encodeMeta, FIELDS, HEAD_FIELDS, metaChecksum, redisKey } from './layout.ts'
import type { RedisStoreOptions, RedisStoreStats } from './options.ts'
import { type BlockAccess, type Frames, RedisEntry, WINDOW_BLOCKS } from './redis-entry.ts'
import { type PreparedEntry, RedisWriter, type WriteAccess } from './redis-writer.ts'
import { DELETE_VERSION, TOUCH } from './scripts.ts'
import { walkEntries } from './walk.ts'

const writesRefused = redisError('REDIS_WRITE_REFUSED', 'Redis has refused too many writes and gets none for a while')
const entryGone = redisError('STORE_ENTRY_GONE', 'the entry was replaced or removed before it was read')

/** Cache in Redis, shared by all who use the same server and prefix. One hash per entry, see layout.ts; one round trip per hit, commit, touch or delete. */
export class RedisStore implements CacheStore {
  readonly guarded = true
  private readonly guard: GuardedClient
  private readonly writeBreaker: Breaker
  private readonly prefix: string
  private readonly maxEntryBytes: number
  private readonly maxPendingBytes: number
  private readonly clock: Clock
  private readonly onFault: (error: ProxyError) => void
  private readonly allFields: readonly string[]
  private readonly sweeps: Sweeps
  /** Versions differ between processes by this and within one by a number. */
  private readonly idPrefix = randomBytes(9).toString('base64url')
  private puts = 0
  private pendingBytes = 0
  private hits = 0
  private misses = 0
  private writes = 0
  private droppedWrites = 0
  private broken = 0

  /** Throws TypeError for limits that are not positive numbers. Sends nothing. */
  constructor(options: RedisStoreOptions) {
    this.prefix = options.prefix ?? 'cache:'
    this.maxEntryBytes = positive('maxEntryBytes', options.maxEntryBytes ?? 1024 * 1024)
    this.maxPendingBytes = positive('maxPendingBytes', options.maxPendingBytes ?? 16 * 1024 * 1024)
    this.clock = options.clock ?? systemClock
    this.onFault = options.onFault ?? ignore
    const failureThreshold = positive('breaker.failureThreshold', options.breaker?.failureThreshold ?? 5)
    const openMs = positive('breaker.openMs', options.breaker?.openMs ?? 1000)
    this.guard = new GuardedClient({
      client: options.redis,
      commandTimeoutMs: positive('commandTimeoutMs', options.commandTimeoutMs ?? 100),
      maxPendingCommands: positive('maxPendingCommands', options.maxPendingCommands ?? 4096),
      failureThreshold,
      openMs,
      clock: this.clock,
      onFault: this.onFault,
      onStateChange: options.breaker?.onStateChange
    })
    this.writeBreaker = createBreaker({ failureThreshold, openMs, clock: this.clock })
    this.sweeps = new Sweeps((find) => walkEntries(this.guard, this.prefix, find))
    this.allFields = headAndBlocks(0, Math.min(WINDOW_BLOCKS, Math.ceil(this.maxEntryBytes / BLOCK_BYTES)) - 1)
  }

  get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    const name = redisKey(this.prefix, key)
    const body = want?.body ?? 'all'
    let first = 0
    let fields: readonly string[]
    if (body === 'all') fields = this.allFields
    else if (body === 'none') fields = HEAD_FIELDS
    else {
      first = Math.floor(body.start / BLOCK_BYTES)
      fields = headAndBlocks(first, Math.min(Math.floor(body.end / BLOCK_BYTES), first + WINDOW_BLOCKS - 1))
    }
    return this.guard
      .run((client) => client.hmgetBuffer(name, ...fields), want?.signal)
      .then(
        (reply) => this.found(name, first, reply),
        (error: unknown) => {
          if (!isWrongType(error)) throw error
          this.misses++
          return undefined
        }
      )
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const access: WriteAccess = {
      maxEntryBytes: this.maxEntryBytes,
      reserve: (bytes) => this.reserve(bytes),
      release: (bytes) => {
        this.pendingBytes -= bytes
      },
      dropped: () => {
        this.droppedWrites++
      },
      send: (entry) => this.send(redisKey(this.prefix, key), entry)
    }
    const admitted = this.storable(meta) && this.guard.connected && this.writeBreaker.allow()
    return new RedisWriter(access, `${this.idPrefix}${(++this.puts).toString(36)}`, meta, admitted)
  }

  touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    if (!this.storable(meta)) return Promise.resolve(false)
    if (!this.writeBreaker.allow()) {
      this.droppedWrites++
      return Promise.reject(writesRefused)
    }
    const text = encodeMeta(meta)
    const args = [redisKey(this.prefix, key), version, text, metaChecksum(version, text), Math.ceil(meta.keepUntil)]
    return this.guard
      .run((client) => client.eval(TOUCH, 1, ...args))
      .then(
        (touched) => {
          if (touched === 1) this.writeBreaker.success()
          return touched === 1
        },
        (error: unknown) => {
          if (isWrongType(error)) return false
          this.writeFailed(error)
          throw error
        }
      )
  }

  delete(key: string, version?: string): Promise<boolean> {
    const name = redisKey(this.prefix, key)
    if (version === undefined) return this.guard.run((client) => client.unlink(name)).then((removed) => removed === 1)
    return this.guard
      .run((client) => client.eval(DELETE_VERSION, 1, name, version))
      .then(
        (removed) => removed === 1,
        (error: unknown) => {
          if (isWrongType(error)) return false
          throw error
        }
      )
  }

  /** Looks at the metadata of every entry, some at a time. What cannot be read is tried again for some seconds; then it rejects. */
  sweep(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number> {
    return this.sweeps.sweep(matches, keep)
  }

  close(): Promise<void> {
    return this.guard.close()
  }

  stats(): RedisStoreStats {
    const { guard, hits, misses, writes, droppedWrites, broken, pendingBytes } = this
    const { timeouts, errors, refused, connected, pending } = guard
    return {
      hits,
      misses,
      writes,
      droppedWrites,
      timeouts,
      errors,
      refused,
      broken,
      connected,
      readBreaker: guard.breaker.state,
      writeBreaker: this.writeBreaker.state,
      pendingCommands: pending,
      pendingBytes
    }
  }

  private found(name: string, first: number, reply: readonly (Buffer | null)[]): CacheEntry | undefined {
    const version = reply[0]
    const head = version ? decodeHead(version, reply[1] ?? null, reply[2] ?? null) : 'unknown'
    if (head === 'broken') this.dropBroken(name, version as Buffer, redisError('STORE_BODY_BROKEN', 'stored metadata is damaged'))
    if (typeof head === 'string') {
      this.misses++
      return undefined
    }
    this.hits++
    return new RedisEntry(head, this.blockAccess(name, head), { first, frames: reply.slice(HEAD_FIELDS.length) })
  }

  private blockAccess(name: string, head: DecodedHead): BlockAccess {
    return {
      readBlocks: (first, last) => this.readBlocks(name, head.version, first, last),
      dropBroken: (error) => this.dropBroken(name, head.version, error)
    }
  }

  private async readBlocks(name: string, version: string, first: number, last: number): Promise<Frames> {
    const reply = await this.guard.run((client) => client.hmgetBuffer(name, ...headAndBlocks(first, last)))
    if (reply[0]?.toString('latin1') !== version) throw entryGone
    return { first, frames: reply.slice(HEAD_FIELDS.length) }
  }

  /** In the background: nobody waits for it, and if it fails the next reader finds the same. */
  private dropBroken(name: string, version: string | Buffer, error: ProxyError): void {
    this.broken++
    this.onFault(error)
    this.guard.run((client) => client.eval(DELETE_VERSION, 1, name, version)).catch(ignore)
  }

  /** MULTI, not a script: Redis refuses the whole of it for want of memory before any of it is done, and does not copy the body into Lua. */
  private async send(name: string, entry: PreparedEntry): Promise<boolean> {
    const fields: (string | Buffer)[] = [FIELDS.version, entry.version, FIELDS.meta, entry.meta, FIELDS.checksum, entry.checksum]
    for (const [i, frame] of entry.frames.entries()) fields.push(String(i), frame)
    try {
      await this.guard.run(async (client) => {
        const replies = await client
          .multi()
          .unlink(name)
          .hset(name, ...fields)
          .pexpireat(name, entry.keepUntil)
          .exec()
        for (const [error] of replies ?? []) if (error !== null) throw error
      })
    } catch (error) {
      this.writeFailed(error)
      return false
    }
    this.writeBreaker.success()
    this.writes++
    return true
  }

  private writeFailed(error: unknown): void {
    this.droppedWrites++
    if (toProxyError(error).code === 'REDIS_WRITE_REFUSED') this.writeBreaker.failure()
  }

  private reserve(bytes: number): boolean {
    if (this.pendingBytes + bytes > this.maxPendingBytes) return false
    this.pendingBytes += bytes
    return true
  }

  /** Redis would drop what has expired at once, and JSON has no Infinity. */
  private storable(meta: CacheMeta): boolean {
    return meta.v === 1 && Number.isFinite(meta.keepUntil) && meta.keepUntil > this.clock.wallMs()
  }
}

function headAndBlocks(first: number, last: number): readonly string[] {
  const fields: string[] = [...HEAD_FIELDS]
  for (let block = first; block <= last; block++) fields.push(String(block))
  return fields
}

function isWrongType(error: unknown): boolean {
  return toProxyError(error).code === 'REDIS_WRONG_TYPE'
}

function positive(name: string, value: number): number {
  if (!(value > 0)) throw new TypeError(`${name} must be a positive number`)
  return value
}

function ignore(): void {}
