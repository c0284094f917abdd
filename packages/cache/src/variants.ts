import { hash } from 'node:crypto'
import { Recent } from './recent.ts'

/** URLs whose variants are counted at most. */
const MAX_URLS = 2000
/** How long a full URL is not asked about again. Milliseconds. */
const FULL_MS = 60_000

interface Known {
  readonly generation: string
  /** Until when each variant is kept, wall clock. */
  readonly keptUntil: Map<string, number>
  /** While it is full: when to look again. Wall clock. */
  fullUntil: number
}

/**
 * Counts the variants of each URL that this process has stored, until they are kept no longer. A client that sends another value of a selecting field each time
 * would fill the store with copies of one response. What is stored by then stays in use, and is renewed.
 */
export class Variants {
  private readonly limit: number
  private urls = new Recent<Known>(MAX_URLS)
  /** Responses that were not stored because of it. */
  refused = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** Whether one more variant may be stored, or this is a known one. Counts it, as kept until `keepUntil`. */
  admits(base: string, generation: string, key: string, keepUntil: number, now: number): boolean {
    let known = this.urls.get(base)
    if (known === undefined || known.generation !== generation) {
      known = { generation, keptUntil: new Map(), fullUntil: 0 }
      this.urls.set(base, known)
    }
    const { keptUntil } = known
    const id = idOf(key)
    if (!keptUntil.has(id) && keptUntil.size >= this.limit) {
      for (const [other, until] of keptUntil) if (until <= now) keptUntil.delete(other)
      if (keptUntil.size >= this.limit) {
        known.fullUntil = now + FULL_MS
        this.refused++
        return false
      }
    }
    keptUntil.set(id, keepUntil)
    return true
  }

  /** Whether this variant need not be fetched on behalf of others: it would not be kept. */
  isFull(base: string, key: string, now: number): boolean {
    const known = this.urls.get(base)
    return known !== undefined && now < known.fullUntil && !known.keptUntil.has(idOf(key))
  }

  /** Much of what was counted may be gone. */
  clear(): void {
    this.urls = new Recent(MAX_URLS)
  }
}

function idOf(key: string): string {
  return hash('sha1', key, 'base64url')
}
