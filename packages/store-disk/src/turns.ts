/** From so many on, those who wait are many. */
export const CROWD = 64

/** Lets a bounded number of pieces of work run at a time, in the order in which they came. */
export class Turns {
  private readonly max: number
  private running = 0
  private readonly waiting: (() => void)[] = []

  constructor(max: number) {
    this.max = max
  }

  /** Many wait for their turn. */
  get isCrowded(): boolean {
    return this.waiting.length >= CROWD
  }

  /** Resolves when it is the caller's turn, who calls `done` once; undefined when that is now. */
  take(): Promise<void> | undefined {
    if (this.running < this.max) {
      this.running++
      return undefined
    }
    return new Promise((resolve) => this.waiting.push(resolve))
  }

  done(): void {
    const next = this.waiting.shift()
    if (next === undefined) this.running--
    else next()
  }
}
