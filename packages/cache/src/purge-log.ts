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

/** When a response was purged, if it was: the latest time of each kind, else -Infinity. */
export interface PurgeVerdict {
  readonly hardAt: number
  readonly softAt: number
}

/**
 * The purges that still matter. Every response found in a store is compared with it by the time at which it was asked for, so that a response whose fill
 * began before the purge and ended after it is caught too, in whatever store it ends up, and no purge waits for a walk through a store.
 */
export interface PurgeLog {
  /** Changes with every record: what was judged under the same revision need not be judged again. */
  readonly revision: number
  /** Resolves once the record counts, and will after a restart where the log can promise that. */
  add(record: PurgeRecord): Promise<void>
  verdict(meta: CacheMeta): PurgeVerdict
}

export interface MemoryPurgeLogOptions {
  /** Records kept at most; beyond, the older half becomes one purge of everything up to their time. At least 2. Default 10 000. */
  readonly maxRecords?: number
}

const never: PurgeVerdict = { hardAt: Number.NEGATIVE_INFINITY, softAt: Number.NEGATIVE_INFINITY }

/** The log of one process, gone when it ends: for stores that are, too. */
export class MemoryPurgeLog implements PurgeLog {
  revision = 0
  private readonly maxRecords: number
  private records: PurgeRecord[] = []
  /** By scope, namespace and value; prefixes aside, which have to be looked at one by one. */
  private readonly exact = new Map<string, PurgeVerdict>()
  private prefixes: PurgeRecord[] = []

  /** Throws RangeError for a bound below 2. */
  constructor(options: MemoryPurgeLogOptions = {}) {
    this.maxRecords = options.maxRecords ?? 10_000
    if (!Number.isInteger(this.maxRecords) || this.maxRecords < 2) throw new RangeError('maxRecords must be an integer of at least 2')
  }

  /** How many records are kept. */
  get size(): number {
    return this.records.length
  }

  add(record: PurgeRecord): Promise<void> {
    this.records.push(record)
    if (this.records.length > this.maxRecords) this.fold()
    else this.index(record)
    this.revision++
    return Promise.resolve()
  }

  verdict(meta: CacheMeta): PurgeVerdict {
    if (this.revision === 0) return never
    let { hardAt, softAt } = never
    const consider = (found: PurgeVerdict | undefined): void => {
      if (found === undefined) return
      if (found.hardAt > hardAt) hardAt = found.hardAt
      if (found.softAt > softAt) softAt = found.softAt
    }
    for (const namespace of [undefined, meta.namespace]) {
      consider(this.exact.get(exactKey('all', namespace, '')))
      consider(this.exact.get(exactKey('url', namespace, meta.url)))
      for (const tag of meta.tags) consider(this.exact.get(exactKey('tag', namespace, tag)))
    }
    for (const record of this.prefixes) if ((record.namespace === undefined || record.namespace === meta.namespace) && meta.url.startsWith(record.value)) consider(verdictOf(record))
    return { hardAt, softAt }
  }

  private index(record: PurgeRecord): void {
    if (record.scope === 'prefix') {
      this.prefixes.push(record)
      return
    }
    const key = exactKey(record.scope, record.namespace, record.value)
    const before = this.exact.get(key) ?? never
    const now = verdictOf(record)
    this.exact.set(key, { hardAt: Math.max(before.hardAt, now.hardAt), softAt: Math.max(before.softAt, now.softAt) })
  }

  /** Too much is purged then, never too little. */
  private fold(): void {
    const older = this.records.splice(0, this.records.length - Math.floor(this.maxRecords / 2))
    for (const soft of [true, false]) {
      const times = older.filter((record) => record.soft === soft).map(({ at }) => at)
      if (times.length > 0) this.records.unshift({ scope: 'all', value: '', at: times.reduce((a, b) => Math.max(a, b)), soft })
    }
    this.exact.clear()
    this.prefixes = []
    for (const record of this.records) this.index(record)
  }
}

function verdictOf({ at, soft }: PurgeRecord): PurgeVerdict {
  return soft ? { hardAt: Number.NEGATIVE_INFINITY, softAt: at } : { hardAt: at, softAt: Number.NEGATIVE_INFINITY }
}

function exactKey(scope: PurgeScope, namespace: string | undefined, value: string): string {
  return `${scope}\n${namespace ?? ''}\n${value}`
}
