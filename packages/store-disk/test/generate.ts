import { randomFillSync } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { EntryIndex } from '../src/entry-index.ts'
import { DiskIo } from '../src/io.ts'
import { Places } from '../src/layout.ts'
import { Owner } from '../src/owner.ts'
import { writeSnapshot } from '../src/snapshot.ts'

/** An index of random entries of one block each. */
export function generateIndex(entries: number, index = new EntryIndex()): EntryIndex {
  const random = new Uint32Array(4 * 4096)
  for (let done = 0; done < entries; ) {
    randomFillSync(random)
    for (let at = 0; at < random.length && done < entries; at += 4, done++) index.set([random[at] as number, random[at + 1] as number, random[at + 2] as number, random[at + 3] as number], 1)
  }
  return index
}

/** Writes the snapshot of an index, added to what `openStore` left in a directory. */
export async function leaveSnapshot(directory: string, index: EntryIndex): Promise<void> {
  const places = new Places(directory)
  await mkdir(places.index, { recursive: true })
  const owner = new Owner()
  await writeSnapshot(new DiskIo(3, 1024), places, index, `${owner.name}.snapshot0`)
  owner.release()
}
