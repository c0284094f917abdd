import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { blocksOf, type EntryIndex, SHARDS } from './entry-index.ts'
import { isAbsent } from './errors.ts'
import { idWords } from './index-shard.ts'
import type { DiskIo } from './io.ts'
import type { Places } from './layout.ts'
import { ABANDONED_AFTER_MS, isGone } from './owner.ts'

const entryName = /^[0-9a-f]{32}$/
/** Names looked at without letting anything else run. */
const NAMES_PER_TURN = 500

/** Removes what stores that are gone left in the folder of temporary files. Rejects with what the system says. */
export async function sweepTemporary(io: DiskIo, places: Places): Promise<void> {
  for (const name of await namesIn(io, places.temporary)) {
    const path = join(places.temporary, name)
    const gone = isGone(name)
    try {
      if (gone === true || (gone === 'unknown' && Date.now() - (await io.stat(path)).mtimeMs > ABANDONED_AFTER_MS)) await io.unlink(path)
    } catch (error) {
      if (!isAbsent(error)) throw error
    }
  }
}

/** Brings the index in line with the files that are there, one folder after the other. Rejects with what the system says. */
export async function survey(io: DiskIo, places: Places, index: EntryIndex, isStopped: () => boolean): Promise<void> {
  for (let shard = 0; shard < SHARDS; shard++) {
    if (isStopped()) return
    // From here on, what is added is newer than this and is left alone.
    const { tick } = index
    const names = await entriesIn(io, places, shard)
    const seen = new Set<string>()
    for (const [i, name] of names.entries()) {
      if (i % NAMES_PER_TURN === NAMES_PER_TURN - 1) await turn()
      if (isStopped()) return
      seen.add(name)
      if (index.blocksFor(name) === 0) await addFile(io, places, index, name)
    }
    // What was put again since the folder was read has a new stamp; of what another store put meanwhile its journal will tell.
    for (const name of index.unseen(shard, seen, tick)) index.remove(idWords(name))
    await turn()
  }
}

/** The names of the files in one of the folders of entries. Rejects with what the system says. */
export async function entriesIn(io: DiskIo, places: Places, shard: number): Promise<string[]> {
  const prefix = shard.toString(16).padStart(2, '0')
  const names = await namesIn(io, places.shard(prefix))
  return names.filter((name) => entryName.test(name) && name.startsWith(prefix))
}

async function addFile(io: DiskIo, places: Places, index: EntryIndex, name: string): Promise<void> {
  try {
    const stats = await io.stat(places.file(name))
    if (stats.isFile()) index.set(idWords(name), blocksOf(stats.size))
  } catch (error) {
    if (!isAbsent(error)) throw error
  }
}

async function namesIn(io: DiskIo, folder: string): Promise<string[]> {
  try {
    return await io.readdir(folder)
  } catch (error) {
    if (isAbsent(error)) return []
    throw error
  }
}
