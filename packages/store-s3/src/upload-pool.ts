/** What all writes share: a budget of bytes that wait to be stored, and a number of requests at a time. */
export class UploadPool {
  pendingBytes = 0
  private readonly maxBytes: number
  private free: number
  private readonly queue: (() => void)[] = []

  constructor(maxBytes: number, maxRequests: number) {
    this.maxBytes = maxBytes
    this.free = maxRequests
  }

  /** Takes bytes out of the budget; false when it has no such room. */
  reserve(bytes: number): boolean {
    if (this.pendingBytes + bytes > this.maxBytes) return false
    this.pendingBytes += bytes
    return true
  }

  release(bytes: number): void {
    this.pendingBytes -= bytes
  }

  /** Waits for a turn. Every turn is given back by `leave`. */
  enter(): Promise<void> {
    if (this.free > 0) {
      this.free--
      return Promise.resolve()
    }
    return new Promise((resolve) => this.queue.push(resolve))
  }

  leave(): void {
    const next = this.queue.shift()
    if (next === undefined) this.free++
    else next()
  }
}
