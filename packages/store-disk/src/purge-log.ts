import { join } from 'node:path'
import { type CacheMeta, MemoryPurgeLog, type PurgeLog, type PurgeRecord, type PurgeVerdict } from '@proxy/cache'
import { type Clock, systemClock } from '@proxy/pipeline'
import { settledWithin, withDeadline } from './deadline.ts'
import { DiskError, isAbsent, toDiskError } from './errors.ts'
import { type DiskFault, Health } from './health.ts'
import { DiskIo } from './io.ts'
import { isGone, Owner, placeKnown } from './owner.ts'
import { PURGES_SUFFIX, PurgeJournal, TEMPORARY_SUFFIX } from './purge-journal.ts'
import { PurgeJournals } from './purge-journals.ts'
import { encodeLine } from './purge-lines.ts'
import { type DiskStore, ioOf } from './store.ts'

export interface DiskPurgeLogOptions {
  /** Where the log lies, in a folder `purges` of its own: the directory of a `DiskStore`, or another one. Made where it is missing; any number of processes may use it. */
  readonly directory: string
  /** The store on the same disk: the log then keeps to its bound of file operations. Default: one at a time. */
  readonly store?: DiskStore
  /** Records kept at most; beyond, the older half becomes one purge of everything up to their time. Give all processes on a directory the same. At least 4. Default 10 000. */
  readonly maxRecords?: number
  /** How often it looks for what other processes have purged: so much later, and the time of reading it, it counts here. Default 1000. */
  readonly pollMs?: number
  /** How long `add` waits for the device. Default 5000. */
  readonly writeTimeoutMs?: number
  /** How long `close` waits for what is under way. Default 5000. */
  readonly closeTimeoutMs?: number
  /** Told of faults, of each kind at most one a minute. What it throws becomes a process warning. */
  readonly onFault?: (fault: DiskFault) => void
  /** Default the system's. */
  readonly clock?: Clock
}

/**
 * Purges in files, so that they hold after a restart and for all processes on the directory. Each log appends to a journal of its own and reads those of the
 * others; it puts those of logs that are gone into its own. No purge is lost by a crash: `add` resolves when it is on the device.
 */
export class DiskPurgeLog implements PurgeLog {
  private readonly log: MemoryPurgeLog
  private readonly io: DiskIo
  private readonly folder: string
  private readonly owner = new Owner()
  private readonly journal: PurgeJournal
  private readonly journals: PurgeJournals
  private readonly health: Health
  private readonly pollMs: number
  private readonly writeTimeoutMs: number
  private readonly closeTimeoutMs: number
  private readonly openedAt: number
  private readonly first: Promise<void>
  /** All journals have been read once. */
  private known = false
  private last: Promise<unknown> = Promise.resolve()
  private queued: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined
  private closed = false

  /** Begins to read. Throws TypeError or RangeError for options that cannot be meant. */
  constructor(options: DiskPurgeLogOptions) {
    const { directory, store, onFault = () => {}, clock = systemClock, maxRecords = 10_000 } = options
    if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) throw new TypeError('directory must be a path')
    this.pollMs = time('pollMs', options.pollMs ?? 1000)
    this.writeTimeoutMs = time('writeTimeoutMs', options.writeTimeoutMs ?? 5000)
    this.closeTimeoutMs = time('closeTimeoutMs', options.closeTimeoutMs ?? 5000)
    this.log = new MemoryPurgeLog({ maxRecords })
    this.folder = join(directory, 'purges')
    this.io = store === undefined ? new DiskIo(1, 1024) : ioOf(store)
    const report = (fault: DiskFault): void => {
      try {
        onFault(fault)
      } catch (error) {
        // This runs where nobody could catch it: a listener's mistake must not end the process.
        process.emitWarning(error instanceof Error ? error : String(error))
      }
    }
    this.health = new Health({ side: 'purges', failureThreshold: 1, openMs: 1, clock, onFault: report })
    const { io, folder, owner } = this
    this.journal = new PurgeJournal({ io, folder, owner, records: () => this.log.records, maxLines: 2 * maxRecords })
    this.journals = new PurgeJournals({ io, folder, owner, apply: (record) => void this.log.add(record), onBroken: () => this.health.failed(new DiskError('broken')) })
    this.openedAt = clock.wallMs()
    this.first = this.exchange()
    void this.first.then(() => this.schedule())
  }

  get revision(): number {
    return this.log.revision + (this.known ? 1 : 0)
  }

  /** Resolves when what other logs left has been read. Rejects with `DiskError` when it cannot be: the log goes on trying. */
  async prepare(): Promise<void> {
    await this.first
    if (!this.known) throw new DiskError('unavailable')
  }

  /**
   * Counts in this process at once. Resolves when it is on the device; rejects with `DiskError` when that fails or takes longer than `writeTimeoutMs`, and with
   * RangeError for one that is longer than a mebibyte. It is written as soon as that is possible again.
   */
  async add(record: PurgeRecord): Promise<void> {
    if (this.closed) throw new DiskError('closed')
    const line = encodeLine(record)
    void this.log.add(record)
    this.journal.add(line)
    try {
      await withDeadline(
        this.writeTimeoutMs,
        undefined,
        () => this.write(),
        () => {}
      )
    } catch (thrown) {
      const error = toDiskError(thrown)
      this.health.failed(error)
      throw error
    }
  }

  verdict(meta: CacheMeta): PurgeVerdict {
    const verdict = this.log.verdict(meta)
    return this.known || meta.requestTime > this.openedAt ? verdict : { hardAt: verdict.hardAt, softAt: Number.POSITIVE_INFINITY }
  }

  /** Writes what is left, for up to `closeTimeoutMs`. Never rejects. */
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    clearTimeout(this.timer)
    // Whoever added it was told, or hears of it by the deadline of its own.
    await settledWithin(
      this.closeTimeoutMs,
      this.write().catch(() => {})
    )
    this.journals.close()
    await settledWithin(this.closeTimeoutMs, this.journal.close())
    this.owner.release()
  }

  /** Those that are asked for while others wait for their turn are written together with them. */
  private write(): Promise<void> {
    this.queued ??= this.inTurn(() => {
      this.queued = undefined
      return this.journal.write()
    })
    return this.queued
  }

  private inTurn(act: () => Promise<void>): Promise<void> {
    const turn = this.last.then(act)
    this.last = turn.catch(() => {}) // told to whoever asked for it
    return turn
  }

  private schedule(): void {
    if (this.closed) return
    this.timer = setTimeout(() => void this.exchange().then(() => this.schedule()), this.pollMs).unref()
  }

  /** Learns what the others did, and writes what could not be written before. Never rejects. */
  private async exchange(): Promise<void> {
    try {
      await this.inTurn(() => this.share())
    } catch (error) {
      if (!this.closed) this.health.failed(toDiskError(error))
    }
  }

  private async share(): Promise<void> {
    const { journal, journals } = this
    await placeKnown()
    const names = await journals.read()
    this.known = true
    if (journal.name !== undefined && !names.includes(journal.name)) journal.isStale = true
    await journal.write()
    await this.removeLeftOver(names)
    for (const name of await journals.abandoned()) {
      journal.isStale = true
      await journals.takeOver(name, journal.freshName() + PURGES_SUFFIX)
    }
    await journal.write()
  }

  /** What this log has written anew or taken over, and what others began and did not end. */
  private async removeLeftOver(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const isMine = name.startsWith(`${this.owner.name}.`)
      if (isMine ? name === this.journal.name : !name.endsWith(TEMPORARY_SUFFIX) || isGone(name) !== true) continue
      try {
        await this.io.unlink(join(this.folder, name))
      } catch (error) {
        if (!isAbsent(error)) throw error
      }
    }
  }
}

function time(name: string, value: number): number {
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number`)
  // A timer beyond this fires at once.
  if (!(value > 0 && value < 2 ** 31)) throw new RangeError(`${name} must be above 0 and below 2147483648`)
  return value
}
