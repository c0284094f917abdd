import { hash } from 'node:crypto'
import { Recent } from './recent.ts'

/** URLs whose variants are counted at most. */
const MAX_URLS = 2000
/** How long no further variants of a URL are kept, once there were too many. Milliseconds. */
const FULL_MS = 60_000

interface Known {
  readonly generation: string
  readonly keys: Set<string>
  /** Monotonic; 0 while there is room. */
  fullUntilMs: number
}

/**
 * Counts the variants of each URL that this process has stored. A client that sends another value of a selecting field each time would fill the store with copies of one
 * response. What is stored by then stays in use.
 */
export class Variants {
  private readonly limit: number
  private readonly urls = new Recent<Known>(MAX_URLS)
  /** Responses that were not stored because of it. */
  refused = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** Whether one more variant may be stored, or this is a known one. Counts it. */
  admits(base: string, generation: string, key: string, monotonicMs: number): boolean {
    let known = this.urls.get(base)
    if (known === undefined || known.generation !== generation || (known.fullUntilMs > 0 && monotonicMs >= known.fullUntilMs)) {
      known = { generation, keys: new Set(), fullUntilMs: 0 }
      this.urls.set(base, known)
    }
    const id = hash('sha1', key, 'base64url')
    if (known.keys.has(id)) return true
    if (known.keys.size >= this.limit) {
      if (known.fullUntilMs === 0) known.fullUntilMs = monotonicMs + FULL_MS
      this.refused++
      return false
    }
    known.keys.add(id)
    return true
  }

  /** Whether a variant that is not stored need not be fetched on behalf of others: it would not be kept. */
  isFull(base: string, monotonicMs: number): boolean {
    const known = this.urls.get(base)
    return known !== undefined && monotonicMs < known.fullUntilMs
  }
}
