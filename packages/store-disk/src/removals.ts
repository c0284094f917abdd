import { Condemned } from './condemned.ts'
import { DiskError, toDiskError } from './errors.ts'
import type { Health } from './health.ts'
import type { DiskFile, DiskIo } from './io.ts'
import type { Places } from './layout.ts'
import type { UselessReason } from './reader.ts'
import { removeExactly } from './removal.ts'

export interface RemovalsHost {
  readonly io: DiskIo
  readonly places: Places
  readonly readHealth: Health
  readonly removalHealth: Health
  isClosed(): boolean
  temporaryPath(): string
  /** The file of an entry is gone. */
  removed(id: string): void
}

/** Files that have to go: those that turned out to be of no use, in the background, and others while somebody waits. What cannot be removed is not served. */
export class Removals {
  readonly condemned = new Condemned()
  /** Files that were not what was written. */
  broken = 0
  private readonly host: RemovalsHost
  private readonly underWay = new Map<string, Promise<void>>()

  constructor(host: RemovalsHost) {
    this.host = host
  }

  /** Resolves when those that have begun in the background have ended. Never rejects. */
  settled(): Promise<unknown> {
    return Promise.all(this.underWay.values())
  }

  /** Removes the file of an entry unless another one has its name by then; resolves to whether it did. Rejects with what the system says. */
  async remove(id: string, file: DiskFile): Promise<boolean> {
    const { io, places, temporaryPath, removed } = this.host
    const isRemoved = await removeExactly(io, file, places.file(id), temporaryPath())
    if (isRemoved) removed(id)
    return isRemoved
  }

  foundUseless(id: string, version: string, file: DiskFile, reason: UselessReason): void {
    const { readHealth, removalHealth, isClosed } = this.host
    if (reason === 'broken') {
      this.broken++
      readHealth.failed(new DiskError('broken'))
    }
    if (isClosed() || this.underWay.has(id)) return
    // What could not be removed is tried again with each lookup, but not on a disk that refuses.
    if (reason === 'condemned' && removalHealth.state !== 'closed') return
    const removal = this.remove(id, file).then(
      () => void this.underWay.delete(id),
      (error: unknown) => {
        this.underWay.delete(id)
        removalHealth.failed(toDiskError(error))
        if (reason === 'broken' && version !== '') this.condemned.add(version)
      }
    )
    this.underWay.set(id, removal)
  }
}
