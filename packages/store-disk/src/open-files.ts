import { DiskError } from './errors.ts'
import type { DiskFile } from './io.ts'

interface Slot {
  lookups: number
  /** Files that are held, by the version that they are. */
  readonly versions: Map<string, DiskFile>
}

/**
 * The files that entries and bodies hold, at most `max`: one for each version, however many read it. A lookup takes its place before it opens anything, so that
 * many that begin at once stay below the bound together; those of one name share a place, as they mostly find the same file.
 */
export class OpenFiles {
  private readonly max: number
  private readonly slots = new Map<string, Slot>()
  private taken = 0

  constructor(max: number) {
    this.max = max
  }

  /** Files that are held. */
  get count(): number {
    let count = 0
    for (const { versions } of this.slots.values()) count += versions.size
    return count
  }

  /** Takes a place for a lookup of `id`, which calls `leave` at its end. Throws DISK_BUSY where there is none. */
  enter(id: string): void {
    const slot = this.slots.get(id) ?? { lookups: 0, versions: new Map<string, DiskFile>() }
    if (placesOf(slot) === 0 && this.taken >= this.max) throw new DiskError('busy')
    this.change(id, slot, () => slot.lookups++)
  }

  leave(id: string): void {
    const slot = this.slots.get(id) as Slot
    this.change(id, slot, () => slot.lookups--)
  }

  /**
   * The file to read that version from, which the caller closes: `file`, or the one that is held for it already, and `file` is closed. Only between `enter` and
   * `leave`. Throws DISK_BUSY where there is no place for one more version.
   */
  hold(id: string, version: string, file: DiskFile): DiskFile {
    const slot = this.slots.get(id) as Slot
    const { versions } = slot
    const held = versions.get(version)
    if (held?.retain()) {
      file.close()
      return held
    }
    // The first one has the place of its lookup, and where one is about to be closed, that one's.
    if (versions.size > 0 && held === undefined && this.taken >= this.max) throw new DiskError('busy')
    this.change(id, slot, () => versions.set(version, file))
    file.onClosed = () => {
      if (versions.get(version) === file) this.change(id, slot, () => versions.delete(version))
    }
    return file
  }

  private change(id: string, slot: Slot, act: () => void): void {
    const before = placesOf(slot)
    act()
    const places = placesOf(slot)
    this.taken += places - before
    if (places > 0) this.slots.set(id, slot)
    else this.slots.delete(id)
  }
}

const placesOf = ({ lookups, versions }: Slot): number => Math.max(versions.size, lookups > 0 ? 1 : 0)
