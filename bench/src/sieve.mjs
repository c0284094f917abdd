import { MAX_STEPS, Queue } from '../../packages/cache/src/eviction.ts'

/**
 * SIEVE (Zhang et al., NSDI 2024): one queue in the order of arrival, and a hand that walks from its old end to its new end, again and again. It takes out
 * what has not been asked for since it passed last. Here to be compared with; the store does not have it.
 */
export class Sieve {
  queue = new Queue()
  /** The next to be looked at; undefined is the oldest. */
  hand = undefined

  hit(entry) {
    entry.mark = 1
  }

  add(entry) {
    this.queue.add(entry)
  }

  evict() {
    let entry = this.hand ?? this.queue.oldest
    for (let steps = 0; entry !== undefined && entry.mark === 1 && steps < MAX_STEPS; steps++) {
      entry.mark = 0
      entry = entry.newer ?? this.queue.oldest
    }
    if (entry === undefined) return undefined
    this.hand = entry.newer
    this.queue.remove(entry)
    return entry
  }
}
