import type { Clock } from '@proxy/pipeline'

/** Rough cost of a key that is remembered, beside its characters. */
const OVERHEAD_BYTES = 100

/**
 * What should have been removed from a store and could not be. Bounded: when there is no room for one more removal that must hold, all of them become a time,
 * and everything that was asked for until then counts as outdated. Too much is forgotten then, never too little.
 *
 * Kept apart are keys of which only a newer entry lies in a nearer store: they are the first to be dropped for want of room, as what they hide is an older
 * answer that its origin still allowed.
 */
export class MissedRemovals {
  /** Responses asked for until then (wall clock, milliseconds) do not count. -Infinity while there was room. */
  outdatedUntil = Number.NEGATIVE_INFINITY
  /** Counts what is added. Whatever puts or removes something under a key notes it before it begins. */
  mark = 0
  private readonly maxBytes: number
  private readonly clock: Clock
  /** Key -> the mark it got. Oldest first. */
  private readonly removed = new Map<string, number>()
  private readonly superseded = new Map<string, number>()
  private bytes = 0

  constructor(maxBytes: number, clock: Clock) {
    this.maxBytes = maxBytes
    this.clock = clock
  }

  get size(): number {
    return this.removed.size + this.superseded.size
  }

  /** Whether there are removals to be made up for. */
  get isOwing(): boolean {
    return this.removed.size > 0
  }

  /** Keys that are to be removed still. Those that are added while one goes through them come too. */
  owed(): MapIterator<string> {
    return this.removed.keys()
  }

  has(key: string): boolean {
    return this.removed.has(key) || this.superseded.has(key)
  }

  /** `isSuperseded`: a newer entry lies in a nearer store. */
  add(key: string, isSuperseded: boolean): void {
    const mark = ++this.mark
    if (this.removed.has(key)) {
      this.removed.set(key, mark)
      return
    }
    if (this.superseded.delete(key)) this.bytes -= costOf(key)
    ;(isSuperseded ? this.superseded : this.removed).set(key, mark)
    this.bytes += costOf(key)
    this.makeRoom()
  }

  /** What lay under the key when `mark` was noted is not there any more. */
  resolve(key: string, mark: number): void {
    if (this.size === 0) return
    for (const keys of [this.removed, this.superseded]) {
      const added = keys.get(key)
      if (added === undefined || added > mark) continue
      keys.delete(key)
      this.bytes -= costOf(key)
    }
  }

  private makeRoom(): void {
    for (const key of this.superseded.keys()) {
      if (this.bytes <= this.maxBytes) return
      this.superseded.delete(key)
      this.bytes -= costOf(key)
    }
    if (this.bytes <= this.maxBytes) return
    this.outdatedUntil = this.clock.wallMs()
    this.removed.clear()
    this.bytes = 0
  }
}

/** Keys are Latin-1 for the most part. */
function costOf(key: string): number {
  return key.length + OVERHEAD_BYTES
}
