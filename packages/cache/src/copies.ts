import type { CacheWriter } from './store.ts'

interface RunningCopy {
  isOverruled: boolean
  /** Once it has begun to become visible. */
  commit: Promise<boolean> | undefined
}

/**
 * The order of what changes a key in several stores. Changes are done one after the other, as they were asked for: the stores differ in how long they take, and
 * would end up with different answers. Copies of entries do not land after what has changed meanwhile: whoever changes a key overrules the copies of what was
 * there, and waits for those that are becoming visible at that moment.
 */
export class Copies {
  /** Key -> when the latest change that was asked for is done. */
  private readonly changes = new Map<string, Promise<void>>()
  private readonly running = new Map<string, Set<RunningCopy>>()

  /** Does what changes a key, once the changes before it are done. */
  async change<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.changes.get(key)
    const running = this.running.get(key)
    const done = Promise.withResolvers<void>()
    this.changes.set(key, done.promise)
    try {
      if (running !== undefined) {
        const commits: Promise<boolean>[] = []
        for (const copy of running) {
          copy.isOverruled = true
          if (copy.commit !== undefined) commits.push(copy.commit)
        }
        await Promise.allSettled(commits)
      }
      if (before !== undefined) await before
      return await work()
    } finally {
      done.resolve()
      if (this.changes.get(key) === done.promise) this.changes.delete(key)
    }
  }

  /** Commits a copy if `holds` says that it is one still and nothing changes the key meanwhile; otherwise ends its write. Rejects when `holds` does. */
  async commit(key: string, writer: CacheWriter, holds: () => Promise<boolean>): Promise<boolean> {
    const copy: RunningCopy = { isOverruled: this.changes.has(key), commit: undefined }
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
