import { createHash, randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { threadId } from 'node:worker_threads'

/** Who made a file in `tmp` or a journal: its name begins with `host.pid.thread.random`. */
const pattern = /^([0-9a-f]{8})\.(\d+)\.(\d+)\.[0-9a-f]{12}(?=\.)/

const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8)

/** Stores of this thread that are open, also those of a second copy of this package. */
const registry = Symbol.for('@proxy/store-disk/owners')
const holder = globalThis as { [registry]?: Set<string> }
const ours = (holder[registry] ??= new Set<string>())

/** What another machine, or another thread, left is taken for abandoned when nobody has changed it for this long. */
export const ABANDONED_AFTER_MS = 60 * 60_000

export function createOwner(): string {
  const owner = `${host}.${process.pid}.${threadId}.${randomBytes(6).toString('hex')}`
  ours.add(owner)
  return owner
}

export function releaseOwner(owner: string): void {
  ours.delete(owner)
}

/** Whether the store that made a file is gone; `unknown` where only the file's age can tell; undefined for a file that no store made. */
export function isGone(fileName: string): boolean | 'unknown' | undefined {
  const match = pattern.exec(fileName)
  if (match === null) return undefined
  const pid = Number(match[2])
  if (match[1] !== host) return 'unknown'
  if (pid === process.pid) return Number(match[3]) === threadId ? !ours.has(match[0]) : 'unknown'
  try {
    process.kill(pid, 0)
    // Alive, or its number went to somebody else.
    return 'unknown'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH' ? true : 'unknown'
  }
}
