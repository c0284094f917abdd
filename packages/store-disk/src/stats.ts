import type { BreakerState } from '@proxy/pipeline/breaker'

/** Why a write was not even tried, or given up: labels of a metric. */
export type DropReason = 'too-large' | 'no-room' | 'unavailable' | 'closed'

export interface DiskStoreStats {
  /** Entries that are known, those of other processes on the directory among them. */
  readonly entries: number
  /** What their files take, and those being written. */
  readonly bytes: number
  readonly maxBytes: number
  readonly hits: number
  readonly misses: number
  readonly evictions: number
  /** Files that were not what was written, and were removed for it. */
  readonly broken: number
  /** Writes that are visible. */
  readonly writes: number
  /** Writes that the disk failed. */
  readonly failedWrites: number
  /** Writes that were not tried, or given up, by reason. */
  readonly droppedWrites: Readonly<Record<DropReason, number>>
  readonly pendingWrites: number
  readonly pendingBytes: number
  readonly openFiles: number
  /** Bytes read from files, of the index too. */
  readonly bytesRead: number
  /** True while the directory is being compared with the index. */
  readonly surveying: boolean
  readonly readErrors: number
  /** Of writes, touches and removals. */
  readonly writeErrors: number
  readonly timeouts: number
  readonly readBreaker: BreakerState
  readonly writeBreaker: BreakerState
}
