import { hash } from 'node:crypto'

/** What a limiter remembers of one key. */
export interface TableEntry {
  readonly key: string
  /** Place in the table, kept by it. */
  slot: number
}

/** Options of every limiter that keeps keys in memory. */
export interface KeyTableOptions {
  /** Most keys held at once. A whole number from 1, default 100 000 (some 20 MB in a token bucket). */
  readonly maxKeys?: number
}

const DEFAULT_MAX_KEYS = 100_000
const SAMPLE = 8
/** Longer keys are kept as digests, so that a client who chooses them does not choose how much memory they take. */
const MAX_KEY_LENGTH = 128

/**
 * Keys and their state, bounded in number. Every operation takes constant time; there is no timer and no list to keep in order.
 *
 * When it is full, a new key takes the place of the one least worth remembering of eight drawn at random. `debtEndMs` tells the worth: the time at which what
 * the key has taken is paid back at the limit's rate. A key whose debt is paid is as good as a new one and goes first; a key at its limit is worth most.
 * So a flood of other keys does not wash out a key that has used up its limit: they owe less and push out one another. It would go only once nearly all
 * others owe as much, which costs `maxKeys` times `limit` allowed takes in the time in which the one key recovers by itself, and whoever can name that
 * many keys has no use for the one. (Least recently used would forget it after `maxKeys` takes.)
 */
export class KeyTable<E extends TableEntry> {
  private readonly byKey = new Map<string, E>()
  private readonly entries: E[] = []
  private readonly maxKeys: number
  private readonly debtEndMs: (entry: E) => number

  /** Throws RangeError for a `maxKeys` that is not a whole number from 1. */
  constructor(options: KeyTableOptions, debtEndMs: (entry: E) => number) {
    const { maxKeys = DEFAULT_MAX_KEYS } = options
    if (!Number.isSafeInteger(maxKeys) || maxKeys < 1) throw new RangeError(`maxKeys must be a whole number from 1, not ${maxKeys}`)
    this.maxKeys = maxKeys
    this.debtEndMs = debtEndMs
  }

  get size(): number {
    return this.entries.length
  }

  get(key: string): E | undefined {
    return this.byKey.get(key)
  }

  /** Adds an entry for a key that has none, in the place of another when the table is full. */
  add(entry: E, nowMs: number): void {
    if (this.entries.length < this.maxKeys) {
      entry.slot = this.entries.length
      this.entries.push(entry)
    } else {
      const victim = this.leastWorth(nowMs)
      this.byKey.delete(victim.key)
      entry.slot = victim.slot
      this.entries[entry.slot] = entry
    }
    this.byKey.set(entry.key, entry)
  }

  private leastWorth(nowMs: number): E {
    const { entries } = this
    let least = this.draw()
    let leastMs = this.debtEndMs(least)
    // The draw is random, not a walk round the table, so that nobody can place keys around the one that is to go.
    for (let i = Math.min(entries.length, SAMPLE); i > 1 && leastMs > nowMs; i--) {
      const other = this.draw()
      const otherMs = this.debtEndMs(other)
      if (otherMs < leastMs) {
        least = other
        leastMs = otherMs
      }
    }
    return least
  }

  private draw(): E {
    return this.entries[Math.floor(Math.random() * this.entries.length)] as E
  }
}

/** The key as it is stored: itself, or a SHA-256 digest of it when it is longer than 128 characters. */
export function storedKey(key: string): string {
  return key.length <= MAX_KEY_LENGTH ? key : `sha256:${hash('sha256', key, 'base64url')}`
}
