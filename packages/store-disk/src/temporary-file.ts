import { withDeadline } from './deadline.ts'
import type { DiskFile } from './io.ts'
import type { EntryName } from './layout.ts'
import type { WriteHost } from './write-host.ts'

/** The file of one write: made with its first bytes, given its name when all are there, removed where it does not come to that. Each step has its deadline. */
export class TemporaryFile {
  /** Undefined until something was written. */
  open: DiskFile | undefined
  /** Room taken on the disk. */
  bytes = 0
  /** Bytes that a file operation has: also beyond its deadline, as it cannot be cut off. */
  inFlightBytes = 0
  /** Resolves when no operation has any. */
  inFlight: Promise<void> = Promise.resolve()
  private readonly host: WriteHost
  private path = ''
  private ended = false

  constructor(host: WriteHost) {
    this.host = host
  }

  /** Rejects with `DiskError` or what the system says. */
  put(bytes: Buffer, position: number): Promise<void> {
    this.inFlightBytes = bytes.byteLength
    const work = this.putNow(bytes, position)
    const ended = (): void => {
      this.inFlightBytes = 0
    }
    this.inFlight = work.then(ended, ended)
    return this.step(work)
  }

  async sync(): Promise<void> {
    if (this.open !== undefined) await this.step(this.open.sync())
  }

  /** Makes the file that of an entry. */
  async rename(name: EntryName, version: string): Promise<void> {
    const { io, places, givenUp } = this.host
    const commit = io.inFolder(places.shard(name.id), () => io.rename(this.path, places.file(name.id)))
    try {
      await this.step(commit)
    } catch (error) {
      givenUp(name, version, commit)
      throw error
    }
  }

  /** Lets go of the file, and removes it unless it was renamed. */
  end(isStored: boolean): void {
    this.ended = true
    if (!isStored && this.open !== undefined) this.unlink()
    this.open?.close()
    this.host.space.release(this.bytes)
  }

  private async putNow(bytes: Buffer, position: number): Promise<void> {
    const { io, places, space } = this.host
    this.bytes += bytes.byteLength
    await space.reserve(bytes.byteLength)
    if (this.open === undefined) {
      // Only a store that is open can name its files.
      this.path = this.host.temporaryPath()
      const file = await io.openNew(this.path, places.temporary)
      if (this.ended) {
        // Given up meanwhile: what ended the write had nothing to remove yet.
        file.close()
        this.unlink()
        return
      }
      this.open = file
    }
    await this.open.write(bytes, position)
  }

  private step<T>(work: Promise<T>): Promise<T> {
    return withDeadline(
      this.host.options.writeTimeoutMs,
      undefined,
      () => work,
      () => {}
    )
  }

  private unlink(): void {
    // Where it cannot be removed, the next start does it.
    this.host.io.unlink(this.path).catch(() => {})
  }
}
