import { type Clock, systemClock } from '@proxy/pipeline'
import { KeyTable, type KeyTableOptions, type TableEntry } from './key-table.ts'
import { type Decision, type MemoryLimiter, MutableDecision, type Policy } from './limiter.ts'

/** Options of every limiter in memory. */
export interface KeyedLimiterOptions extends KeyTableOptions {
  /** Default the system's. Only its monotonic time is read. */
  readonly clock?: Clock
}

/** What limiters in memory have in common, whatever they remember of a key: a table of keys, and one decision that `takeNow` overwrites. */
export abstract class KeyedLimiter<E extends TableEntry> implements MemoryLimiter {
  protected readonly clock: Clock
  protected readonly table: KeyTable<E>
  protected readonly decision: MutableDecision

  /** `debtEndMs` is the table's. Throws RangeError where that does. */
  constructor(options: KeyedLimiterOptions, policy: Policy, debtEndMs: (entry: E) => number) {
    this.clock = options.clock ?? systemClock
    this.table = new KeyTable<E>(options, debtEndMs)
    this.decision = new MutableDecision(policy)
  }

  get size(): number {
    return this.table.size
  }

  async take(key: string, cost?: number): Promise<Decision> {
    this.takeNow(key, cost)
    return this.decision.copy()
  }

  abstract takeNow(key: string, cost?: number): Decision
}
