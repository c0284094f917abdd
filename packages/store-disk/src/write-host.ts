import type { BlockCursor } from './blocks-file.ts'
import type { Health } from './health.ts'
import type { DiskIo } from './io.ts'
import type { EntryName, Places } from './layout.ts'
import type { ResolvedOptions } from './options.ts'
import type { SpaceKeeper } from './space.ts'
import type { DropReason } from './stats.ts'

/** What a write needs of its store. */
export interface WriteHost {
  readonly io: DiskIo
  readonly options: ResolvedOptions
  readonly places: Places
  readonly health: Health
  readonly space: SpaceKeeper
  /** Takes `bytes` out of what may wait to be written; false when there is no such room. */
  reservePending(bytes: number): boolean
  releasePending(bytes: number): void
  /** A path in the folder of temporary files. */
  temporaryPath(): string
  dropped(reason: DropReason): void
  failed(): void
  stored(): void
  /** The next blocks of a write's own file, within the deadline. */
  readBlocks(cursor: BlockCursor): Promise<Buffer[]>
  /** The writer was told that this version is not stored, and `commit` may still make it visible: it is not served, and removed where it comes. */
  givenUp(name: EntryName, version: string, commit: Promise<void>): void
}
