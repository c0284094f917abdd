import { isAbsent, systemCode } from './errors.ts'
import type { DiskFile, DiskIo } from './io.ts'

/**
 * Removes the file at `path` if it is the one that is open as `file`; resolves to whether it was. A file that took its name meanwhile stays: the name is moved
 * aside first, looked at, and put back where it is another one's and nobody has taken it. `file` is kept open meanwhile, so that its inode is nobody else's.
 */
export async function removeExactly(io: DiskIo, file: DiskFile, path: string, aside: string): Promise<boolean> {
  if (!file.retain()) return false
  try {
    return await remove(io, file, path, aside)
  } finally {
    file.close()
  }
}

async function remove(io: DiskIo, file: DiskFile, path: string, aside: string): Promise<boolean> {
  const [wanted, there] = await Promise.all([file.stat(), statOrNone(io, path)])
  if (there === undefined || there.ino !== wanted.ino || there.dev !== wanted.dev) return false
  try {
    await io.rename(path, aside)
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
  const isMine = (await io.stat(aside)).ino === wanted.ino
  if (!isMine) {
    try {
      await io.link(aside, path)
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error
    }
  }
  await io.unlink(aside)
  return isMine
}

async function statOrNone(io: DiskIo, path: string): Promise<{ ino: number; dev: number } | undefined> {
  try {
    return await io.stat(path)
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}
