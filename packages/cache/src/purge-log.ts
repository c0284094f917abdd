import type { CacheMeta } from './store.ts'

/** What a purge is about. `url` and `prefix` compare with scheme, authority and target as requested; `tag` with the surrogate keys of a response. */
export type PurgeScope = 'url' | 'prefix' | 'tag' | 'all'

/** "Whatever was asked for until `at`, and is about this, does not count any more." */
export interface PurgeRecord {
  readonly scope: PurgeScope
  /** Empty for `all`. */
  readonly value: string
  /** Only responses of this namespace. Undefined: of all. */
  readonly namespace?: string | undefined
  /** Wall clock, milliseconds. */
  readonly at: number
  /** Stale from then on, instead of gone. */
  readonly soft: boolean
}

/**
 * When a response was purged, if it was: the latest time of each kind, else -Infinity. A `softAt` of Infinity says that it is not known yet (the log has not been
 * read): the origin is asked before the response is served, also where a stale one could be, and it stands in for an origin that fails where that is allowed.
 */
export interface PurgeVerdict {
  readonly hardAt: number
  readonly softAt: number
}

/**
 * The purges that still matter. Every response found in a store is compared with it by the time at which it was asked for, so that a response whose fill
 * began before the purge and ended after it is caught too, in whatever store it ends up, and no purge waits for a walk through a store.
 * `@proxy/cache/conformance` holds the suite that every log passes.
 */
export interface PurgeLog {
  /** Changes whenever a verdict may: what was judged under the same revision need not be judged again. */
  readonly revision: number
  /**
   * Counts in this process at once. Resolves once the log keeps what else it promises (a restart, other processes); rejects when it cannot: the record counts
   * here all the same.
   */
  add(record: PurgeRecord): Promise<void>
  verdict(meta: CacheMeta): PurgeVerdict
}

export interface MemoryPurgeLogOptions {
  /** Records kept at most; beyond, the older half becomes one purge of everything up to their time. At least 4. Default 10 000. */
  readonly maxRecords?: number
}

const NEVER = Number.NEGATIVE_INFINITY
const never: PurgeVerdict = { hardAt: NEVER, softAt: NEVER }
const done = Promise.resolve()

/** The log of one process, gone when it ends: for stores that are, too. Logs that keep more hold one of these as what they know. */
export class MemoryPurgeLog implements PurgeLog {
  revision = 0
  private readonly maxRecords: number
  /** The latest record of each kind about each thing, in order of arrival; none that a purge of everything makes superfluous. */
  private readonly kept = new Map<string, PurgeRecord>()
  /** Those of them that have to be looked at one by one. */
  private readonly prefixes = new Map<string, PurgeRecord>()

  /** Throws RangeError for a bound below 4. */
  constructor(options: MemoryPurgeLogOptions = {}) {
    this.maxRecords = options.maxRecords ?? 10_000
    // Half of it and two purges of everything, a hard and a soft one, have to fit.
    if (!Number.isInteger(this.maxRecords) || this.maxRecords < 4) throw new RangeError('maxRecords must be an integer of at least 4')
  }

  /** How many records are kept. */
  get size(): number {
    return this.kept.size
  }

  /** What is kept. Added in this order to an empty log of the same size they give the same verdicts. */
  get records(): Iterable<PurgeRecord> {
    return this.kept.values()
  }

  add(record: PurgeRecord): Promise<void> {
    this.count(record)
    if (this.kept.size > this.maxRecords) this.fold()
    return done
  }

  verdict(meta: CacheMeta): PurgeVerdict {
    return this.kept.size === 0 ? never : { hardAt: this.latest(meta, false), softAt: this.latest(meta, true) }
  }

  /** Makes one purge of everything out of the records before `wallMs`: too much is purged then, never too little. True when that changed anything. */
  foldBefore(wallMs: number): boolean {
    const { revision } = this
    this.merge([...this.kept.values()].filter(({ at }) => at < wallMs))
    return this.revision !== revision
  }

  private latest({ url, namespace, tags }: CacheMeta, soft: boolean): number {
    let at = NEVER
    for (const where of [undefined, namespace]) {
      at = Math.max(at, this.timeOf('all', where, '', soft), this.timeOf('url', where, url, soft))
      for (const tag of tags) at = Math.max(at, this.timeOf('tag', where, tag, soft))
    }
    for (const record of this.prefixes.values()) {
      if (record.at > at && record.soft === soft && (record.namespace === undefined || record.namespace === namespace) && url.startsWith(record.value)) at = record.at
    }
    return at
  }

  private timeOf(scope: PurgeScope, namespace: string | undefined, value: string, soft: boolean): number {
    return this.kept.get(keyOf(scope, namespace, value, soft))?.at ?? NEVER
  }

  private count(record: PurgeRecord): void {
    const { scope, namespace, value, at, soft } = record
    const covering = Math.max(this.timeOf('all', undefined, '', soft), namespace === undefined ? NEVER : this.timeOf('all', namespace, '', soft), this.timeOf(scope, namespace, value, soft))
    if (covering >= at) return
    if (scope === 'all') this.dropCovered(record)
    const key = keyOf(scope, namespace, value, soft)
    // To the end: it is the latest to arrive.
    this.kept.delete(key)
    this.kept.set(key, record)
    if (scope === 'prefix') this.prefixes.set(key, record)
    this.revision++
  }

  private dropCovered({ namespace, at, soft }: PurgeRecord): void {
    for (const [key, record] of this.kept) {
      if (record.soft !== soft || record.at > at || (namespace !== undefined && record.namespace !== namespace)) continue
      this.kept.delete(key)
      this.prefixes.delete(key)
    }
  }

  private fold(): void {
    const byTime = [...this.kept.values()].sort((a, b) => a.at - b.at)
    this.merge(byTime.slice(0, byTime.length - Math.floor(this.maxRecords / 2)))
  }

  private merge(older: readonly PurgeRecord[]): void {
    for (const soft of [true, false]) {
      const at = older.reduce((latest, record) => (record.soft === soft && record.at > latest ? record.at : latest), NEVER)
      if (at !== NEVER) this.count({ scope: 'all', value: '', at, soft })
    }
  }
}

function keyOf(scope: PurgeScope, namespace: string | undefined, value: string, soft: boolean): string {
  return `${scope}${soft ? '~' : '\n'}${namespace === undefined ? '' : `=${namespace}`}\n${value}`
}
