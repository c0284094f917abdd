import type { SharedReader } from './shared-reader.ts'

/** The readers of one body, and how they stand to each other. */
export class ReaderSet extends Set<SharedReader> {
  // As of the last `survey`:
  /** One has had all there is, and would take more. */
  oneHungry = false
  /** All have. True where there are none. */
  allHungry = true
  /** Number of the first chunk that a reader on the window still needs; Infinity without any. */
  slowestChunk = Number.POSITIVE_INFINITY
  /** Bytes that the fastest reader on the window has had, and the fastest of those who read behind it; -1 without any. */
  furthest = -1
  furthestBehind = -1

  survey(): void {
    this.oneHungry = false
    this.allHungry = true
    this.slowestChunk = Number.POSITIVE_INFINITY
    this.furthest = -1
    this.furthestBehind = -1
    for (const reader of this) {
      if (reader.hungry) this.oneHungry = true
      else this.allHungry = false
      if (reader.onWindow) {
        if (reader.next < this.slowestChunk) this.slowestChunk = reader.next
        if (reader.delivered > this.furthest) this.furthest = reader.delivered
      } else if (reader.isFollowing && reader.delivered > this.furthestBehind) this.furthestBehind = reader.delivered
    }
  }
}
