/** Slots that one key can lie in. */
const WAYS = 4
const MIN_SLOTS = 256

/**
 * Keys that were evicted lately, bounded in number: of each a fingerprint of 32 bits and when it was, in a table that grows with the bound and is 8 to 16
 * bytes per key. Two keys with one fingerprint are taken for each other; then one entry is kept in another queue than it would have been.
 */
export class Ghosts {
  /** Pairs of fingerprint and time, `WAYS` of them to a bucket. A fingerprint of 0 is a free slot. */
  private table = new Uint32Array(2 * MIN_SLOTS)
  /** Counts evictions, modulo 2 ** 32. */
  private now = 0

  /** Remembers `key`; `limit` is how many are to be remembered. */
  add(key: string, limit: number): void {
    if (2 * limit > this.table.length) this.grow(limit)
    this.now = (this.now + 1) >>> 0
    this.put(fingerprint(key), this.now, this.now)
  }

  /** Whether `key` was among the last `limit` that were added. Forgets it. */
  take(key: string, limit: number): boolean {
    const { table } = this
    const print = fingerprint(key)
    const end = this.bucket(print) + 2 * WAYS
    for (let at = end - 2 * WAYS; at < end; at += 2) {
      if (table[at] !== print) continue
      table[at] = 0
      return (this.now - (table[at + 1] as number)) >>> 0 < limit
    }
    return false
  }

  get slots(): number {
    return this.table.length / 2
  }

  private bucket(print: number): number {
    return (print * 2 * WAYS) & (this.table.length - 1)
  }

  /** In the place of the same key, in a free one, or of the oldest in the bucket. */
  private put(print: number, time: number, now: number): void {
    const { table } = this
    const first = this.bucket(print)
    let chosen = first
    let oldest = -1
    for (let at = first; at < first + 2 * WAYS; at += 2) {
      const age = table[at] === print || table[at] === 0 ? Number.POSITIVE_INFINITY : (now - (table[at + 1] as number)) >>> 0
      if (age <= oldest) continue
      oldest = age
      chosen = at
    }
    table[chosen] = print
    table[chosen + 1] = time
  }

  private grow(limit: number): void {
    const before = this.table
    let slots = before.length / 2
    while (slots < limit) slots *= 2
    this.table = new Uint32Array(2 * slots)
    for (let at = 0; at < before.length; at += 2) if (before[at] !== 0) this.put(before[at] as number, before[at + 1] as number, this.now)
  }
}

/** Not 0. FNV-1a, with the last step of MurmurHash3: buckets are chosen by the lowest bits. */
function fingerprint(key: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  hash = (hash ^ (hash >>> 16)) >>> 0
  return hash === 0 ? 1 : hash
}
