/** What a policy knows of an entry, and what it keeps there: a hit allocates nothing. The links are those of the queue that the entry is in. */
export interface Resident {
  readonly key: string
  /** What the entry takes. Does not change while the entry is resident. */
  readonly bytes: number
  newer: Resident | undefined
  older: Resident | undefined
  /** The policy's own; 0 in a new entry. */
  mark: number
}

/** Which entry goes next. Every operation takes constant time; no policy has a timer. */
export interface Eviction {
  /** The entry was asked for. */
  hit(entry: Resident): void
  /** An entry under a key that is not resident. */
  add(entry: Resident): void
  /** `after` takes the place of `before`, an entry under the same key. No hit: whoever writes has asked before. */
  replace(before: Resident, after: Resident): void
  /** The entry goes for another reason than want of room. */
  remove(entry: Resident): void
  /** Takes the next entry out; undefined when there is none. */
  evict(): Resident | undefined
}

/**
 * Entries that have been asked for are passed over this often by one eviction, then the next one goes all the same. Without a bound the first eviction
 * after a quiet time would look at every entry there is.
 */
export const MAX_STEPS = 128

/** Entries in an order, linked through themselves. */
export class Queue {
  newest: Resident | undefined
  oldest: Resident | undefined
  bytes = 0
  length = 0

  add(entry: Resident): void {
    const { newest } = this
    entry.older = newest
    if (newest === undefined) this.oldest = entry
    else newest.newer = entry
    this.newest = entry
    this.bytes += entry.bytes
    this.length++
  }

  /** Makes it the newest. */
  renew(entry: Resident): void {
    const { newer, older } = entry
    if (newer === undefined) return
    newer.older = older
    if (older === undefined) this.oldest = newer
    else older.newer = newer
    const { newest } = this
    entry.newer = undefined
    entry.older = newest
    if (newest !== undefined) newest.newer = entry
    this.newest = entry
  }

  /** Leaves no links in the entry: one that has gone, but has not been collected yet, would keep its younger neighbours alive. */
  remove(entry: Resident): void {
    const { newer, older } = entry
    if (newer === undefined) this.newest = older
    else newer.older = older
    if (older === undefined) this.oldest = newer
    else older.newer = newer
    entry.newer = entry.older = undefined
    this.bytes -= entry.bytes
    this.length--
  }

  /** In the same place. */
  replace(before: Resident, after: Resident): void {
    const { newer, older } = before
    after.newer = newer
    after.older = older
    if (newer === undefined) this.newest = after
    else newer.older = after
    if (older === undefined) this.oldest = after
    else older.newer = after
    before.newer = before.older = undefined
    this.bytes += after.bytes - before.bytes
  }
}
