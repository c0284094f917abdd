import type { EntryIndex } from './entry-index.ts'
import { type Change, Journal } from './journal.ts'
import { OtherJournals } from './others.ts'
import { readSnapshot, writeSnapshot } from './snapshot.ts'
import type { SpaceHost } from './space.ts'

const HEARTBEAT_MS = 10 * 60_000
/** From here on a snapshot is shorter than what the journal would grow to. */
const JOURNAL_BYTES = 1024 * 1024
const JOURNAL_BYTES_PER_ENTRY = 12

/** The index on disk: a snapshot, this store's journal, and those of the others. All of it rejects with what the system says, and may be lost. */
export class IndexFiles {
  private readonly host: SpaceHost
  private readonly index: EntryIndex
  private readonly journal: Journal
  private readonly others: OtherJournals
  private isWhole = false
  private beatAtMs = 0
  private snapshots = 0

  constructor(host: SpaceHost, index: EntryIndex) {
    this.host = host
    this.index = index
    this.journal = new Journal(host.io, host.places, host.owner)
    this.others = new OtherJournals(host.io, host.places, host.owner)
  }

  /** Bytes of files that the other stores have not been told of. */
  get unannouncedBytes(): number {
    return this.journal.waitingFileBytes
  }

  /** The index lacks something that only the directory itself can tell: files that were not read, or records that were lost. */
  get isIncomplete(): boolean {
    return !this.isWhole || this.journal.lossy
  }

  set isIncomplete(value: boolean) {
    this.isWhole = !value
    this.journal.lossy = false
  }

  note(change: Change): void {
    this.journal.add(change)
  }

  async load(apply: (change: Change) => void): Promise<void> {
    const isWhole = await readSnapshot(this.host.io, this.host.places, this.index)
    await this.others.read(apply)
    this.isWhole = isWhole
  }

  /** Writes what this store did, and applies what the others did. */
  async share(apply: (change: Change) => void): Promise<void> {
    const { journal } = this
    const { io, options } = this.host
    await journal.flush()
    await this.others.read(apply)
    const nowMs = options.clock.monotonicMs()
    if (journal.size > 0 && nowMs - this.beatAtMs > HEARTBEAT_MS) {
      this.beatAtMs = nowMs
      await io.setModified(journal.path, Date.now())
    }
    if (journal.size > JOURNAL_BYTES + this.index.count * JOURNAL_BYTES_PER_ENTRY) await this.snapshot()
  }

  /** Puts the journals of stores that are gone into a snapshot, where there are any. */
  async absorb(): Promise<void> {
    if (this.others.finished.length > 0) await this.snapshot()
  }

  /** The last that is written. Others may not have read the journal yet, so it stays: it is short, and the next start removes it. */
  async conclude(): Promise<void> {
    await this.journal.flush()
    if (this.index.count > 0) await this.writeSnapshot()
  }

  close(): void {
    this.others.close()
    this.journal.close()
  }

  private async snapshot(): Promise<void> {
    const finished = this.others.finished
    // What changes while the snapshot is written goes into the new journal.
    const before = await this.journal.rotate()
    await this.writeSnapshot()
    await this.others.remove(finished)
    // Where it cannot be removed it is read once more by the next start.
    if (before !== undefined) await this.host.io.unlink(before).catch(() => {})
  }

  private writeSnapshot(): Promise<void> {
    return writeSnapshot(this.host.io, this.host.places, this.index, `${this.host.owner.name}.snapshot${this.snapshots++}`)
  }
}
