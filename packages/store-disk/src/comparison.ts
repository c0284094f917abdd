import type { EntryIndex } from './entry-index.ts'
import { toDiskError } from './errors.ts'
import type { IndexFiles } from './index-files.ts'
import type { SpaceHost } from './space.ts'
import { survey, sweepTemporary } from './upkeep.ts'

const EVERY_MS = 60 * 60_000
/** After one that failed: until it has been done, the size is not known and not bounded. */
const RETRY_MS = 5000

/** Brings the index in line with the directory, and removes what dead stores left: at the start, every hour, and whenever the index is known to lack something. */
export class Comparison {
  /** True until the first one has ended, and during each further one. */
  isRunning = true
  private readonly host: SpaceHost
  private readonly index: EntryIndex
  private readonly files: IndexFiles
  private readonly isStopped: () => boolean
  private isUnswept = true
  private beganAtMs = Number.NEGATIVE_INFINITY

  constructor(host: SpaceHost, index: EntryIndex, files: IndexFiles, isStopped: () => boolean) {
    this.host = host
    this.index = index
    this.files = files
    this.isStopped = isStopped
  }

  get isDue(): boolean {
    const sinceMs = this.host.options.clock.monotonicMs() - this.beganAtMs
    return !this.isRunning && (sinceMs > EVERY_MS || (sinceMs > RETRY_MS && (this.isUnswept || this.files.isIncomplete)))
  }

  /** Does all of it once an hour, and in between only what failed or is needed. Then `settle`, which brings the files within their bound. Never rejects. */
  async run(settle: () => Promise<void>): Promise<void> {
    const { host, files } = this
    const { io, places, options } = host
    const nowMs = options.clock.monotonicMs()
    const isFull = nowMs - this.beganAtMs > EVERY_MS
    this.isRunning = true
    this.beganAtMs = nowMs
    if (isFull || this.isUnswept) this.isUnswept = !(await this.tried(() => sweepTemporary(io, places)))
    if (isFull || files.isIncomplete) {
      // What is lost from here on has to be looked for once more.
      files.isIncomplete = false
      if (!(await this.tried(() => survey(io, places, this.index, this.isStopped)))) files.isIncomplete = true
    }
    if (!this.isStopped()) await this.tried(() => files.absorb())
    await this.tried(settle)
    this.isRunning = false
  }

  private async tried(act: () => Promise<void>): Promise<boolean> {
    try {
      await act()
      return true
    } catch (error) {
      this.host.health.failed(toDiskError(error))
      return false
    }
  }
}
