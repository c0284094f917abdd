import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { unwatch, watch } from './watchdog.ts'

export interface TempDir {
  readonly path: string
  remove(): Promise<void>
}

/** A new folder that is gone at the latest when this process is. `parent` (default the system's folder for temporary files) must exist. */
export async function createTempDir(prefix: string, parent = tmpdir()): Promise<TempDir> {
  const path = await mkdtemp(join(parent, prefix))
  watch(`dir:${path}`)
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true, maxRetries: 10 })
      unwatch(`dir:${path}`)
    }
  }
}
