import type { ChunkWindow } from './chunk-window.ts'
import { timerMs } from './deadline.ts'
import { readerLost } from './errors.ts'
import type { KeptCopy } from './kept-copy.ts'
import type { ReaderSet } from './reader-set.ts'

/** What is fetched ahead of a client who is slower than the origin, with nobody else reading: a piece to send while the next one is on its way. */
const READ_AHEAD_BYTES = 64 * 1024

export interface PaceOptions {
  /** Bytes of the body, when the origin declared them. */
  readonly length: number | undefined
  readonly windowBytes: number
  /** How long slow readers may keep others waiting for what is kept nowhere. */
  readonly storeStallMs: number
}

/** Who is told that readers were given up, and more may be wanted. */
export interface PaceOwner {
  advance(): void
}

/** How fast a shared body is fetched, and what of it is held for its readers. */
export class Pace {
  private readonly options: PaceOptions
  private readonly window: ChunkWindow
  private readonly readers: ReaderSet
  private readonly copy: KeptCopy
  private readonly owner: PaceOwner
  /** Runs while slow readers hold up others. */
  private patience: NodeJS.Timeout | undefined
  /** Bytes received so far. */
  received = 0
  /** How many wait for the stored copy. */
  awaiting = 0

  constructor(options: PaceOptions, window: ChunkWindow, readers: ReaderSet, copy: KeptCopy, owner: PaceOwner) {
    this.options = options
    this.window = window
    this.readers = readers
    this.copy = copy
    this.owner = owner
  }

  stop(): void {
    clearTimeout(this.patience)
  }

  /** Whether the origin shall send more. May begin to lose patience. */
  wantsMore(): boolean {
    const { copy, readers, window } = this
    const { length, storeStallMs, windowBytes } = this.options
    if (copy.isWaiting) return false
    const { heldBytes } = window
    readers.survey()
    if (readers.allHungry) return true
    if (readers.oneHungry || this.awaiting > 0) {
      if (!copy.isLost || heldBytes < windowBytes) return true
      this.patience ??= setTimeout(() => this.loseSlowest(window.next), timerMs(storeStallMs))
      return false
    }
    // Nobody waits. With readers on the window, the fastest of them sets the pace; without, the copy does.
    if (readers.furthest !== -1) return this.received - readers.furthest < READ_AHEAD_BYTES && heldBytes < windowBytes
    // A body of unknown length may be more than the store takes: the fastest reader has to be on the window by then.
    return length !== undefined || readers.furthestBehind === -1 || heldBytes < windowBytes / 2 || this.isNear(readers.furthestBehind)
  }

  /** Whether a reader behind the window that has had `offset` bytes may be what the origin waits for. */
  mayMatter(offset: number): boolean {
    return offset === this.received || (this.options.length === undefined && this.isNear(offset))
  }

  /** In the newer half of the window. */
  private isNear(offset: number): boolean {
    return 2 * offset >= this.window.start + this.received
  }

  /** Readers that have not got through a window in all the time that others waited for them get no more of a body that is kept nowhere. */
  private loseSlowest(before: number): void {
    const { readers } = this
    this.patience = undefined
    readers.survey()
    if (readers.oneHungry) for (const reader of readers) if (reader.onWindow && reader.next < before) reader.fail(readerLost())
    this.owner.advance()
  }

  /**
   * Keeps the window within its bound: drops what all its readers have had and then, as long as the bytes are kept elsewhere too and somebody is ahead,
   * what only slow ones still need.
   */
  trim(): void {
    const { windowBytes } = this.options
    const { copy, readers, window } = this
    readers.survey()
    const { slowestChunk } = readers
    // Readers yet to come find the beginning in the copy, where that can be read; elsewhere in the window, for as long as it fits. Those behind may catch up.
    const keeps = (!copy.isLost && !copy.canFollow) || readers.furthestBehind !== -1
    while (window.first < slowestChunk && window.size > 0 && (window.heldBytes > windowBytes || !keeps)) window.drop()
    if (copy.isLost || (!readers.oneHungry && this.awaiting === 0)) return
    while (window.heldBytes > windowBytes && window.size > 1) window.drop()
    if (window.first > slowestChunk) for (const reader of readers) if (reader.onWindow && reader.next < window.first) reader.fallBehind()
  }
}
