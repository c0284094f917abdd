import { hash } from 'node:crypto'

/** Longer keys are remembered by their digest, so that clients with long URLs cannot fill the memory. Characters. */
const MAX_PLAIN_KEY = 256

/**
 * The values set last, bounded in number: the last `maxEntries / 2` at least, `maxEntries` at most. Constant time.
 *
 * Two maps, of which the older one is dropped whole. One map that loses its first key for each one added is slow: what was deleted stays in it as gaps
 * until it is rebuilt, and finding the first key walks over them.
 */
export class Recent<V> {
  private readonly half: number
  private newer = new Map<string, V>()
  private older = new Map<string, V>()

  constructor(maxEntries: number) {
    this.half = Math.ceil(maxEntries / 2)
  }

  /** Nothing has been set, or all of it was long ago. */
  get isEmpty(): boolean {
    return this.newer.size === 0 && this.older.size === 0
  }

  get(given: string): V | undefined {
    const key = short(given)
    return this.newer.get(key) ?? this.older.get(key)
  }

  delete(given: string): void {
    const key = short(given)
    this.newer.delete(key)
    this.older.delete(key)
  }

  set(given: string, value: V): void {
    const key = short(given)
    if (this.newer.size >= this.half && !this.newer.has(key)) {
      this.older = this.newer
      this.newer = new Map()
    }
    this.newer.set(key, value)
  }
}

function short(key: string): string {
  return key.length <= MAX_PLAIN_KEY ? key : `#${hash('sha256', key, 'base64url')}`
}
