import { createHash, randomBytes } from 'node:crypto'
import { readFile, readlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { threadId } from 'node:worker_threads'

/** Who made a file in `tmp` or a journal: its name begins with `place.pid.thread.random`. */
const pattern = /^([0-9a-f]{8})\.(\d+)\.(\d+)\.([0-9a-f]{12})(?=\.)/

/** What another machine, container or thread left is taken for abandoned when nobody has changed it for this long. */
export const ABANDONED_AFTER_MS = 60 * 60_000

/** Stores of this thread that are open, by the random part of their names; also those of a second copy of this package. */
const registry = Symbol.for('@proxy/store-disk/open-owners')
const holder = globalThis as { [registry]?: Set<string> }
const ours = (holder[registry] ??= new Set<string>())

/** Until it is known, and where it cannot be: one that nobody else has, so that nobody takes what is made meanwhile for left. */
let place = randomBytes(4).toString('hex')
const known = findPlace().then(
  (found) => {
    place = digest(found)
  },
  () => {
    // Without /proc there is no telling who shares the numbers of processes: all that others left goes by its age.
  }
)

/** Where the number of a process means one process. A container has the name of its host, or of another container, more often than not, but numbers of its own. */
async function findPlace(): Promise<string> {
  if (process.platform !== 'linux') return hostname()
  const [boot, namespace] = await Promise.all([readFile('/proc/sys/kernel/random/boot_id', 'utf8'), readlink('/proc/self/ns/pid')])
  return `${hostname()} ${boot.trim()} ${namespace}`
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 8)

/** Resolves when names and `isGone` can tell as much as they ever will. To be awaited before either is used. Never rejects. */
export const placeKnown = (): Promise<void> => known

/** An open store or log, whose files others leave alone until `release`. */
export class Owner {
  private readonly random = randomBytes(6).toString('hex')

  constructor() {
    ours.add(this.random)
  }

  /** What the names of its files begin with, before a dot. The same from `placeKnown` on. */
  get name(): string {
    return `${place}.${process.pid}.${threadId}.${this.random}`
  }

  release(): void {
    ours.delete(this.random)
  }
}

/** Whether the store that made a file is gone; `unknown` where only the file's age can tell; undefined for a file that no store made. */
export function isGone(fileName: string): boolean | 'unknown' | undefined {
  const match = pattern.exec(fileName)
  if (match === null) return undefined
  const [, madeAt, processId, thread, random] = match as unknown as [string, string, string, string, string]
  if (ours.has(random)) return false
  if (madeAt !== place) return 'unknown'
  const pid = Number(processId)
  if (pid === process.pid) return Number(thread) === threadId || 'unknown'
  try {
    process.kill(pid, 0)
    // Alive, or its number went to somebody else.
    return 'unknown'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH' ? true : 'unknown'
  }
}
