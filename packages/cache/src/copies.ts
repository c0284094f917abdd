import type { CacheWriter } from './store.ts'

interface RunningCopy {
  isOverruled: boolean
  /** Once it has begun to become visible. */
  commit: Promise<boolean> | undefined
}

/**
 * Keeps copies of entries from landing after what has changed meanwhile: whoever removes or puts something under a key overrules the copies of what was there, and
 * waits for those that are becoming visible at that moment.
 */
export class Copies {
  private readonly changing = new Map<string, number>()
  private readonly running = new Map<string, Set<RunningCopy>>()

  /** Does what changes a key. */
  async change<T>(key: string, work: () => Promise<T>): Promise<T> {
    this.changing.set(key, (this.changing.get(key) ?? 0) + 1)
    try {
      const running = this.running.get(key)
      if (running !== undefined) {
        for (const copy of running) copy.isOverruled = true
        await Promise.all([...running].map(({ commit }) => commit ?? overruled))
      }
      return await work()
    } finally {
      const others = (this.changing.get(key) ?? 0) - 1
      if (others > 0) this.changing.set(key, others)
      else this.changing.delete(key)
    }
  }

  /** Commits a copy if `holds` says that it is one still and nothing changes the key meanwhile; otherwise ends its write. Rejects when `holds` does. */
  async commit(key: string, writer: CacheWriter, holds: () => Promise<boolean>): Promise<boolean> {
    const copy: RunningCopy = { isOverruled: this.changing.has(key), commit: undefined }
    const running = this.running.get(key) ?? new Set()
    this.running.set(key, running.add(copy))
    try {
      if (!(await holds()) || copy.isOverruled) return false
      copy.commit = writer.commit()
      return await copy.commit
    } finally {
      // Without effect on what is committed.
      writer.abort()
      running.delete(copy)
      if (running.size === 0) this.running.delete(key)
    }
  }
}

const overruled = Promise.resolve(false)
