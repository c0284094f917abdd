import { type CacheMeta, MemoryPurgeLog, type PurgeLog, type PurgeRecord, type PurgeVerdict } from '@proxy/cache'
import { decodePurgeRecord, encodePurgeRecord } from '@proxy/cache/purging'
import { type Clock, type ProxyError, systemClock } from '@proxy/pipeline'
import type { Redis } from 'ioredis'
import { redisError } from './errors.ts'
import { GuardedClient } from './guarded-client.ts'
import { type PurgePage, PurgeSet } from './purge-set.ts'

export interface RedisPurgeLogOptions {
  /** The client of `connectRedis`, or an ioredis client of your own. Not closed by the log. */
  readonly redis: Redis
  /** The one key under which the purges lie. Default `cache:purges`. */
  readonly key?: string
  /** Records kept at most; beyond, the older half becomes one purge of everything up to their time. In Redis twice as many. Give all processes the same. At least 4. Default 10 000. */
  readonly maxRecords?: number
  /** Older records become one purge of everything up to their time. Default 30 days. */
  readonly retentionMs?: number
  /** How often it looks for what other processes have purged: so much later, and `commandTimeoutMs` at most, it counts here. Default 1000. */
  readonly pollMs?: number
  /** How far the clock of a process may be ahead of the others': so much later than it was made a purge still purges what is fetched. Default 500. */
  readonly clockMarginMs?: number
  /** Longest wait for any one reply. A client with a shorter `commandTimeout` of its own ends it earlier. Default 1000. */
  readonly commandTimeoutMs?: number
  /** Default the system's. */
  readonly clock?: Clock
  /** Told of every failed command, and once when this machine's clock is ahead of that of Redis by more than `clockMarginMs`; not of what was refused because Redis was known to be away. Must not throw. */
  readonly onFault?: (error: ProxyError) => void
}

/** How long after a failure what Redis lacks is written again at the earliest: doubled with each one, up to the second. */
const FIRST_PAUSE_MS = 1000
const LONGEST_PAUSE_MS = 30_000
/** Records that have become too old are folded so often, as a part of the retention. */
const FOLD_SHARE = 30

/**
 * Purges in Redis, shared by all processes that use the same key. What each knows it also holds in memory: Redis is asked once per `pollMs`, never by a request. A
 * Redis that was emptied gets back from every process what that knows.
 */
export class RedisPurgeLog implements PurgeLog {
  private readonly redis: Redis
  private readonly log: MemoryPurgeLog
  private readonly guard: GuardedClient
  private readonly set: PurgeSet
  private readonly maxRecords: number
  private readonly retentionMs: number
  private readonly pollMs: number
  private readonly clockMarginMs: number
  private readonly clock: Clock
  private readonly onFault: (error: ProxyError) => void
  private readonly openedAt: number
  /** All of it has been read once. */
  private known = false
  private generation: string | undefined
  /** The last member that was read. */
  private place = { text: '', score: 0 }
  /** What Redis said that it has, and has not been read since: a replica that takes over may lack it. */
  private readonly unseen = new Set<string>()
  /** Redis may lack something that is known here. */
  private isBehind = false
  private pauseMs = FIRST_PAUSE_MS
  private notBeforeMs = Number.NEGATIVE_INFINITY
  private foldedAtMs = Number.NEGATIVE_INFINITY
  /** Clock of Redis less our own, at least. */
  private leadOfRedisMs = Number.NEGATIVE_INFINITY
  private isAhead = false
  private polling: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined
  private closed = false

  /** Begins to read. Throws TypeError or RangeError for limits that cannot be meant. */
  constructor(options: RedisPurgeLogOptions) {
    const { redis, key = 'cache:purges', clock = systemClock, onFault = ignore } = options
    this.maxRecords = options.maxRecords ?? 10_000
    this.log = new MemoryPurgeLog({ maxRecords: this.maxRecords })
    this.retentionMs = atLeast('retentionMs', 1, options.retentionMs ?? 30 * 24 * 3_600_000)
    this.pollMs = atLeast('pollMs', 1, options.pollMs ?? 1000)
    this.clockMarginMs = atLeast('clockMarginMs', 0, options.clockMarginMs ?? 500)
    this.redis = redis
    this.clock = clock
    this.onFault = onFault
    this.guard = new GuardedClient({
      client: redis,
      commandTimeoutMs: atLeast('commandTimeoutMs', 1, options.commandTimeoutMs ?? 1000),
      // Purges that are made at the same time, each of which waits for its reply.
      maxPendingCommands: 4096,
      failureThreshold: 5,
      openMs: 1000,
      clock,
      onFault
    })
    this.set = new PurgeSet(this.guard, key)
    this.openedAt = clock.wallMs()
    redis.on('ready', this.onReady)
    this.schedule(0)
  }

  get revision(): number {
    return this.log.revision + (this.known ? 1 : 0)
  }

  /** Resolves when all of it has been read. Rejects when it cannot be now: the log goes on trying. */
  async prepare(): Promise<void> {
    if (this.known) return
    try {
      await this.poll()
    } catch (error) {
      // It may have been read, and only not be written to.
      if (!this.known) throw error
    }
  }

  /**
   * Counts in this process at once. Resolves when Redis has it; rejects with the errors of this package when it has not, or has not said so. Redis then gets it as
   * soon as it takes it, unless this process ends before.
   */
  async add(record: PurgeRecord): Promise<void> {
    if (this.closed) throw redisError('REDIS_UNAVAILABLE', 'the log of purges is closed')
    // Entries carry the times of other clocks than ours, which may be behind.
    const at = Math.ceil(Math.max(record.at, this.clock.wallMs() + this.leadOfRedisMs) + this.clockMarginMs)
    const counted = { ...record, at }
    void this.log.add(counted)
    const text = encodePurgeRecord(counted)
    try {
      await this.set.add([text])
      this.unseen.add(text)
    } catch (error) {
      this.isBehind = true
      throw error
    }
  }

  verdict(meta: CacheMeta): PurgeVerdict {
    const verdict = this.log.verdict(meta)
    return this.known || meta.requestTime > this.openedAt + this.clockMarginMs ? verdict : { hardAt: verdict.hardAt, softAt: Number.POSITIVE_INFINITY }
  }

  /** Waits for what is under way, within its deadline. Never rejects. */
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    clearTimeout(this.timer)
    this.redis.off('ready', this.onReady)
    await this.guard.close()
  }

  private readonly onReady = (): void => {
    // What was missed while the connection was away.
    this.schedule(0)
  }

  private schedule(afterMs: number): void {
    clearTimeout(this.timer)
    if (this.closed) return
    this.timer = setTimeout(() => {
      // The guard has told of what failed, and refusals are told by whoever made the connection.
      void this.poll()
        .catch(ignore)
        .then(() => this.schedule(this.pollMs))
    }, afterMs).unref()
  }

  private poll(): Promise<void> {
    this.polling ??= this.exchange().finally(() => {
      this.polling = undefined
    })
    return this.polling
  }

  /** Learns what is new, and writes what could not be written before. */
  private async exchange(): Promise<void> {
    const { place } = this
    const expected = [...this.unseen]
    const page = await this.read(place.score)
    const [first] = page.members
    // Nothing was ever purged, or nothing that anybody here knows of.
    if (this.known && page.generation === undefined && this.log.size === 0) return
    if (page.generation === undefined || page.generation !== this.generation || first?.text !== place.text || first.score !== place.score) return this.reconcile()
    await this.readOn(page)
    if (expected.some((text) => this.unseen.has(text))) this.isBehind = true
    this.foldOld(page.wallMs)
    if (this.isBehind || page.count > 2 * this.maxRecords + 1) await this.reconcile()
  }

  /**
   * Compares all of what Redis has with what is known here: takes over what is new, writes what is missing and removes what a later record has made superfluous.
   * For a Redis that was emptied or lost its last writes, for purges that could not be written, and when there are too many.
   */
  private async reconcile(): Promise<void> {
    const nowMs = this.clock.monotonicMs()
    if (this.known && nowMs < this.notBeforeMs) return
    this.notBeforeMs = nowMs + this.pauseMs
    this.pauseMs = Math.min(2 * this.pauseMs, LONGEST_PAUSE_MS)
    const expected = [...this.unseen]
    const page = await this.read(0)
    const there = new Set<string>()
    for (const text of expected) this.unseen.delete(text)
    this.generation = page.generation
    await this.readOn(page, there)
    this.known = true
    this.isBehind = false
    try {
      const wanted = new Set(Array.from(this.log.records, encodePurgeRecord))
      const missing = [...wanted].filter((text) => !there.has(text))
      await this.set.add(missing)
      for (const text of missing) this.unseen.add(text)
      await this.set.remove([...there].filter((text) => !wanted.has(text)))
    } catch (error) {
      this.isBehind = true
      throw error
    }
    this.pauseMs = FIRST_PAUSE_MS
    this.notBeforeMs = Number.NEGATIVE_INFINITY
  }

  /** Counts the records of a page and of those that follow it, and notes their texts. */
  private async readOn(first: PurgePage, texts?: Set<string>): Promise<void> {
    let page = first
    for (;;) {
      for (const { text, score } of page.members) {
        this.place = { text, score }
        const record = score > 0 ? decodePurgeRecord(text) : undefined
        if (record === undefined) continue
        void this.log.add(record)
        this.unseen.delete(text)
        texts?.add(text)
      }
      if (!page.isFull) return
      page = await this.read(this.place.score)
    }
  }

  private async read(score: number): Promise<PurgePage> {
    const [sentWallMs, sentMs] = [this.clock.wallMs(), this.clock.monotonicMs()]
    const page = await this.set.read(score)
    const tookMs = this.clock.monotonicMs() - sentMs
    this.leadOfRedisMs = page.wallMs + tookMs - this.clock.wallMs()
    const aheadMs = sentWallMs - page.wallMs
    if (aheadMs > this.clockMarginMs !== this.isAhead) {
      this.isAhead = !this.isAhead
      if (this.isAhead)
        this.onFault(redisError('REDIS_CLOCK_AHEAD', `the clock of this machine is ${Math.round(aheadMs)} ms ahead of that of Redis: purges of other processes miss what it fetched just before`))
    }
    return page
  }

  private foldOld(wallMs: number): void {
    const nowMs = this.clock.monotonicMs()
    if (nowMs - this.foldedAtMs < this.retentionMs / FOLD_SHARE) return
    this.foldedAtMs = nowMs
    if (this.log.foldBefore(wallMs - this.retentionMs)) this.isBehind = true
  }
}

function atLeast(name: string, least: number, value: number): number {
  // A timer beyond 2^31 fires at once; times of records may be longer.
  if (!(value >= least) || (name === 'pollMs' && value >= 2 ** 31)) throw new RangeError(`${name} must be a number of at least ${least}`)
  return value
}

function ignore(): void {}
