/** Work that goes on behind answers already given, so that an orderly end can wait for it. */
export class Background {
  private readonly running = new Set<Promise<unknown>>()

  /** How the work ends is not its business here: whoever started it has seen to that. */
  add(work: Promise<unknown>): void {
    this.running.add(work)
    void this.watch(work)
  }

  private async watch(work: Promise<unknown>): Promise<void> {
    await Promise.allSettled([work])
    this.running.delete(work)
  }

  /** Resolves when nothing is under way. */
  async drain(): Promise<void> {
    while (this.running.size > 0) await Promise.allSettled(this.running)
  }
}
