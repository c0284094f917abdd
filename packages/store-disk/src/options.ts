import { type Clock, systemClock } from '@proxy/pipeline'
import type { DiskFault } from './health.ts'

export interface DiskStoreOptions {
  /** Made where it is missing. Holds nothing but this store's files; other processes may use it at the same time. */
  readonly directory: string
  /** Bound of what all files take together, rounded up to blocks of 4 KiB. Where several processes share the directory, give all of them the same. */
  readonly maxBytes: number
  /** Larger bodies are not stored. Default: an eighth of `maxBytes`. */
  readonly maxEntryBytes?: number
  /** Bound of the bytes that wait to be written, all writes together; a write that does not fit is dropped. Default 64 MiB. */
  readonly maxPendingBytes?: number
  /** Files held open for entries that are being read or wait for being opened: one for each version, however many read it. Beyond, `get` rejects, but for an entry that is known to be small enough to be read at once. Default 512. */
  readonly maxOpenFiles?: number
  /** Operations given to libuv's thread pool at a time, so that a disk that hangs does not take all of its threads from DNS lookups. Default: one less than the pool has, that is 3. */
  readonly maxOperations?: number
  /** Operations that may wait for their turn. Beyond, `get` rejects. Default 1024. */
  readonly maxQueuedOperations?: number
  /** Flushes each file to the device before it becomes visible. Without it a power failure may leave torn files, which their checksums give away. Default false. */
  readonly fsync?: boolean
  /** From `get`, or `open`, to the first verified bytes, and of each further read of a body. Default 1000. */
  readonly readTimeoutMs?: number
  /** Deadline of one step of a write, of a touch and of a delete. Default 5000. */
  readonly writeTimeoutMs?: number
  /** How long an entry keeps its file open before it is opened, or its body started. Default 30000. */
  readonly holdTimeoutMs?: number
  /** How long `close` waits for what is under way. Default 5000. */
  readonly closeTimeoutMs?: number
  /** When reads or writes stop being tried. Default: after 5 failures in a row, for 1000 ms. */
  readonly breaker?: { readonly failureThreshold?: number; readonly openMs?: number }
  /** Told of faults, each kind at most once a minute and side. What it throws becomes a process warning. */
  readonly onFault?: (fault: DiskFault) => void
  /** Default the system's. */
  readonly clock?: Clock
}

const MIB = 1024 * 1024

/** The options with every default filled in. Throws TypeError or RangeError for one that cannot be meant. */
export function resolveOptions(options: DiskStoreOptions) {
  const resolved = {
    directory: options.directory,
    maxBytes: options.maxBytes,
    maxEntryBytes: options.maxEntryBytes ?? Math.max(1, Math.floor(options.maxBytes / 8)),
    maxPendingBytes: options.maxPendingBytes ?? 64 * MIB,
    maxOpenFiles: options.maxOpenFiles ?? 512,
    maxOperations: options.maxOperations ?? Math.max(2, threadPoolSize() - 1),
    maxQueuedOperations: options.maxQueuedOperations ?? 1024,
    fsync: options.fsync ?? false,
    readTimeoutMs: options.readTimeoutMs ?? 1000,
    writeTimeoutMs: options.writeTimeoutMs ?? 5000,
    holdTimeoutMs: options.holdTimeoutMs ?? 30_000,
    closeTimeoutMs: options.closeTimeoutMs ?? 5000,
    failureThreshold: options.breaker?.failureThreshold ?? 5,
    openMs: options.breaker?.openMs ?? 1000,
    onFault: options.onFault ?? (() => {}),
    clock: options.clock ?? systemClock
  } as const
  if (typeof resolved.directory !== 'string' || resolved.directory === '') throw new TypeError('directory must be a path')
  if (resolved.directory.includes('\0')) throw new TypeError('directory must not contain a zero byte')
  for (const name of [
    'maxBytes',
    'maxEntryBytes',
    'maxPendingBytes',
    'maxOpenFiles',
    'maxOperations',
    'maxQueuedOperations',
    'readTimeoutMs',
    'writeTimeoutMs',
    'holdTimeoutMs',
    'closeTimeoutMs',
    'failureThreshold',
    'openMs'
  ] as const) {
    const value = resolved[name]
    if (typeof value !== 'number') throw new TypeError(`${name} must be a number`)
    if (!(value > 0)) throw new RangeError(`${name} must be above 0`)
  }
  if (resolved.maxBytes < MIB) throw new RangeError('maxBytes must be at least 1 MiB')
  if (resolved.maxEntryBytes > resolved.maxBytes) throw new RangeError('maxEntryBytes must not be above maxBytes')
  for (const name of ['readTimeoutMs', 'writeTimeoutMs', 'holdTimeoutMs', 'closeTimeoutMs'] as const) {
    // A timer beyond this fires at once.
    if (resolved[name] > 2 ** 31 - 1) throw new RangeError(`${name} must be below 2147483648`)
  }
  return resolved
}

export type ResolvedOptions = ReturnType<typeof resolveOptions>

function threadPoolSize(): number {
  const size = Number(process.env.UV_THREADPOOL_SIZE)
  return size >= 1 ? Math.min(size, 1024) : 4
}
