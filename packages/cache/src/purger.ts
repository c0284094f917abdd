import { timerMs } from './deadline.ts'
import type { EngineOptions } from './engine-options.ts'
import type { Fills } from './fill.ts'
import { type Purge, type PurgeResult, purgeRecord } from './purge.ts'
import { MemoryPurgeLog, type PurgeRecord } from './purge-log.ts'
import type { StoredMeta } from './store.ts'

/** Carries out purges. */
export class Purger {
  private readonly options: EngineOptions
  private readonly fills: Fills

  constructor(options: EngineOptions, fills: Fills) {
    this.options = options
    this.fills = fills
  }

  /** Forgets, or makes stale, what `purge` names; also what is just being fetched. Counts from when it resolves. Rejects when the log does. */
  async purge(purge: Purge): Promise<PurgeResult> {
    const { clock, keys, namespace, purges } = this.options
    const record = purgeRecord(purge, namespace, clock.wallMs(), keys)
    this.fills.forget()
    try {
      await purges.add(record)
    } catch (error) {
      // It may be forgotten with this process: what is removed by then cannot come back.
      void this.sweep(record)
      throw error
    }
    return this.sweep(record)
  }

  /** Removes what a purge is about from the store, or counts it. Waits no longer than `sweepWaitMs`, and never rejects: what is not removed is judged when it is found. */
  private async sweep(record: PurgeRecord): Promise<PurgeResult> {
    const { onStoreError, store, sweepWaitMs } = this.options
    if (store.sweep === undefined) return { touched: 0 }
    const judged = new MemoryPurgeLog()
    void judged.add(record)
    let found = 0
    const matches = (meta: StoredMeta): boolean => {
      const { hardAt, softAt } = judged.verdict(meta)
      const isMeant = meta.vary === undefined && Math.max(hardAt, softAt) >= meta.requestTime
      if (isMeant) found++
      return isMeant
    }
    const sweep = async (): Promise<number | undefined> => {
      try {
        return await store.sweep?.(matches, record.soft)
      } catch (error) {
        onStoreError(error)
        return undefined
      }
    }
    const swept = sweep()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, timerMs(sweepWaitMs), undefined)
    })
    const touched = await Promise.race([swept, late])
    clearTimeout(timer)
    return touched === undefined ? { touched: found, partial: true } : { touched }
  }
}
