import type { StoredMeta } from './store.ts'

type Matches = (meta: StoredMeta) => boolean

/** An entry that a sweep looks for. */
export interface SweptEntry {
  /** Whether it is to be removed, or only counted. */
  readonly remove: boolean
  /** Notes that it was found and, where that was wanted, removed. */
  counted(): void
}

/** Goes through a store once, and asks for the metadata of each entry what is to be done with it: undefined for nothing. Rejects when it could not see all of it. */
export type Walk = (find: (meta: StoredMeta) => SweptEntry | undefined) => Promise<void>

interface Sweep {
  readonly matches: Matches
  readonly keep: boolean
  found: number
}

interface Planned {
  readonly sweeps: Sweep[]
  readonly walked: Promise<void>
}

/**
 * `CacheStore.sweep` of a store whose entries have to be fetched to be looked at. One walk at a time: sweeps that are asked for while one goes on share the next
 * one, so that a hundred purges take two walks and not a hundred at once.
 */
export class Sweeps {
  private readonly walk: Walk
  private planned: Planned | undefined
  private last: Promise<unknown> = Promise.resolve()

  constructor(walk: Walk) {
    this.walk = walk
  }

  /** Resolves to how many entries were found; rejects as the walk does. */
  async sweep(matches: Matches, keep: boolean): Promise<number> {
    const sweep: Sweep = { matches, keep, found: 0 }
    this.planned ??= this.plan()
    const { sweeps, walked } = this.planned
    sweeps.push(sweep)
    await walked
    return sweep.found
  }

  private plan(): Planned {
    const sweeps: Sweep[] = []
    const walked = this.begin(sweeps, this.last)
    this.last = walked.catch(() => {}) // told to those who asked for it
    return { sweeps, walked }
  }

  private async begin(sweeps: readonly Sweep[], before: Promise<unknown>): Promise<void> {
    await before
    // Those who ask in the same turn share it: a purge of several routes asks once for each.
    await new Promise((resolve) => setImmediate(resolve))
    this.planned = undefined
    await this.walk((meta) => find(sweeps, meta))
  }
}

function find(sweeps: readonly Sweep[], meta: StoredMeta): SweptEntry | undefined {
  const found = sweeps.filter(({ matches }) => matches(meta))
  if (found.length === 0) return undefined
  return {
    remove: found.some(({ keep }) => !keep),
    counted: () => {
      for (const sweep of found) sweep.found++
    }
  }
}
