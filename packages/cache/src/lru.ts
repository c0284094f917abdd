import { type Eviction, Queue, type Resident } from './eviction.ts'

/** Least recently used first. What is asked for once, such as a crawl, pushes out everything else. */
export class Lru implements Eviction {
  private readonly queue = new Queue()

  hit(entry: Resident): void {
    this.queue.renew(entry)
  }

  add(entry: Resident): void {
    this.queue.add(entry)
  }

  replace(before: Resident, after: Resident): void {
    this.queue.replace(before, after)
    this.queue.renew(after)
  }

  remove(entry: Resident): void {
    this.queue.remove(entry)
  }

  evict(): Resident | undefined {
    const { oldest } = this.queue
    if (oldest !== undefined) this.queue.remove(oldest)
    return oldest
  }
}
