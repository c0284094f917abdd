import { type Eviction, MAX_STEPS, Queue, type Resident } from './eviction.ts'
import { Ghosts } from './ghosts.ts'

/** Share of the memory in which new entries have to prove themselves. */
const SMALL_SHARE = 0.1
/** In `mark`: how often the entry was asked for, up to this. */
const COUNT = 3
/** In `mark`: it is in the main queue. */
const MAIN = 4

/**
 * S3-FIFO (Yang et al., SOSP 2023) with queues measured in bytes. New entries enter a small queue; from its end those that were asked for go on to the main
 * queue, the others go and leave a ghost. What has a ghost enters the main queue at once. A hit counts and moves nothing.
 *
 * Unlike in the paper one hit is enough to reach the main queue, not two: that is as good where popularity lasts, and better where it changes.
 */
export class S3Fifo implements Eviction {
  private readonly small = new Queue()
  private readonly main = new Queue()
  private readonly ghosts = new Ghosts()
  private readonly smallBytes: number

  constructor(maxBytes: number) {
    this.smallBytes = maxBytes * SMALL_SHARE
  }

  hit(entry: Resident): void {
    if ((entry.mark & COUNT) < COUNT) entry.mark++
  }

  add(entry: Resident): void {
    if (this.ghosts.take(entry.key, this.ghostLimit)) this.toMain(entry, 0)
    else this.small.add(entry)
  }

  replace(before: Resident, after: Resident): void {
    after.mark = before.mark
    this.queueOf(before).replace(before, after)
  }

  remove(entry: Resident): void {
    this.queueOf(entry).remove(entry)
  }

  evict(): Resident | undefined {
    for (let steps = 0; ; steps++) {
      const fromSmall = this.small.bytes > this.smallBytes || this.main.oldest === undefined
      const queue = fromSmall ? this.small : this.main
      const entry = queue.oldest
      if (entry === undefined) return undefined
      queue.remove(entry)
      const count = entry.mark & COUNT
      if (count === 0 || steps === MAX_STEPS) {
        if (fromSmall) this.ghosts.add(entry.key, this.ghostLimit)
        return entry
      }
      this.toMain(entry, fromSmall ? 0 : count - 1)
    }
  }

  private toMain(entry: Resident, count: number): void {
    entry.mark = MAIN | count
    this.main.add(entry)
  }

  private queueOf(entry: Resident): Queue {
    return (entry.mark & MAIN) === 0 ? this.small : this.main
  }

  /** As many ghosts as entries. */
  private get ghostLimit(): number {
    return this.small.length + this.main.length
  }
}
