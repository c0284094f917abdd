/** Work that goes on behind answers already given, so that an orderly end can wait for it. */
export class Background {
  private readonly running = new Set<Promise<unknown>>()

  /** How the work ends is not its business here: whoever started it has seen to that. */
  add(work: Promise<unknown>): void {
    this.running.add(work)
    void this.watch(work)
  }

  private async watch(work: Promise<unknown>): Promise<void> {
    try {
      await work
    } catch {
      // Seen by whoever started it.
    }
    this.running.delete(work)
  }

  /** How much is under way. */
  get size(): number {
    return this.running.size
  }

  /** Resolves when what is under way now has ended. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.running)
  }
}
