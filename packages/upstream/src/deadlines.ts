/** Something that may run out of time. It carries its own place in the queue, so that a deadline costs no object. */
export abstract class Timed {
  queue: DeadlineQueue | undefined
  previous: Timed | undefined
  next: Timed | undefined
  dueMs = 0

  /** Called once when the time is up, after it was taken out of the queue. Must not throw. */
  abstract onDeadline(): void
}

/**
 * Deadlines that all lie the same time ahead, and so come due in the order they were set: a linked list and one timer for its head.
 * Setting, moving and clearing one is a few assignments; it comes due within some 2 ms.
 *
 * undici's own timers tick twice a second: they are up to a second late, or half a second early.
 */
export class DeadlineQueue {
  /** How many are waiting. */
  size = 0
  private readonly timeoutMs: number
  private first: Timed | undefined
  private last: Timed | undefined
  private armed = false

  /** `timeoutMs` 0: nothing ever comes due. */
  constructor(timeoutMs: number) {
    this.timeoutMs = timeoutMs
  }

  /** Gives `timed` the whole time from now on; takes it out of the queue it was in. */
  add(timed: Timed): void {
    timed.queue?.remove(timed)
    timed.queue = this
    timed.dueMs = performance.now() + this.timeoutMs
    timed.previous = this.last
    if (this.last === undefined) this.first = timed
    else this.last.next = timed
    this.last = timed
    this.size++
    if (!this.armed && this.timeoutMs > 0) this.arm(this.timeoutMs)
  }

  /** `timed` must be in this queue. */
  remove(timed: Timed): void {
    const { previous, next } = timed
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.last = previous
    else next.previous = previous
    timed.queue = undefined
    timed.previous = undefined
    timed.next = undefined
    this.size--
  }

  private arm(ms: number): void {
    this.armed = true
    setTimeout(this.onTimer, Math.max(1, Math.ceil(ms))).unref()
  }

  // After a pause of the whole process timers run before sockets are read: what has arrived meanwhile was in time and is heard first.
  private readonly onTimer = (): void => {
    setImmediate(this.expire)
  }

  private readonly expire = (): void => {
    const now = performance.now()
    while (this.first !== undefined && this.first.dueMs <= now) {
      const timed = this.first
      this.remove(timed)
      timed.onDeadline()
    }
    if (this.first === undefined) this.armed = false
    else this.arm(this.first.dueMs - now)
  }
}
