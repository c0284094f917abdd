import { setTimeout as sleep } from 'node:timers/promises'
import type { StoredMeta } from '@proxy/cache'
import type { SweptEntry } from '@proxy/cache/purging'
import { SHARDS } from './entry-index.ts'
import { isAbsent, systemCode, toDiskError } from './errors.ts'
import type { DiskFile, DiskIo } from './io.ts'
import { currentMeta, decodeHead, digestIn, type FileHead, type Places } from './layout.ts'
import type { ResolvedOptions } from './options.ts'
import { parseMeta } from './stored-meta.ts'
import { entriesIn } from './upkeep.ts'

/** Files looked at at a time. Reads go before them, and writes and reads have threads that these never take. */
const CONCURRENCY = 2
/** What holds nearly every head: the rest is read where that is not enough. */
const FIRST_BYTES = 4 * 1024
/** So many files in one walk may fail; then it is the disk. */
const MAX_FAILURES = 20
/** Before another try where too much is under way. */
const PAUSE_MS = 1000

export interface WalkHost {
  readonly io: DiskIo
  readonly places: Places
  readonly options: ResolvedOptions
  isClosed(): boolean
  isCondemned(version: string): boolean
  /** Removes the file of an entry, unless another one has its name by then; resolves to whether it did. */
  remove(id: string, file: DiskFile): Promise<boolean>
}

type Find = (meta: StoredMeta) => SweptEntry | undefined

/**
 * Goes through all files, reads the head of each and removes what `find` says. An entry that is there from the beginning to the end is seen. Rejects with what the
 * system says when a file could not be looked at or removed, after it has seen the others; ends early when the store is closed. It has no part in the breakers.
 */
export async function walkFiles(host: WalkHost, find: Find): Promise<void> {
  const failures: unknown[] = []
  for (let shard = 0; shard < SHARDS; shard++) {
    const names = (await entriesIn(host.io, host.places, shard)).values()
    const worker = async (): Promise<void> => {
      for (const name of names) {
        if (failures.length >= MAX_FAILURES || host.isClosed()) return
        await visit(host, name, find).catch((error: unknown) => failures.push(error))
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, worker))
    if (failures.length >= MAX_FAILURES || host.isClosed()) break
  }
  if (failures.length > 0 && !host.isClosed()) throw failures[0]
}

async function visit(host: WalkHost, id: string, find: Find): Promise<void> {
  for (;;) {
    try {
      await look(host, id, find)
      return
    } catch (error) {
      if (isAbsent(error) || systemCode(error) === 'EISDIR' || host.isClosed()) return
      if (toDiskError(error).kind !== 'busy') throw error
      await sleep(PAUSE_MS, undefined, { ref: false })
    }
  }
}

async function look(host: WalkHost, id: string, find: Find): Promise<void> {
  const file = await host.io.open(host.places.file(id), 'r', 'write')
  try {
    const meta = await metaOf(host, id, file)
    const found = meta && find(meta)
    if (found === undefined || (found.remove && !(await host.remove(id, file)))) return
    found.counted()
  } finally {
    file.close()
  }
}

/** The metadata of an entry as of its last touch; undefined for what is not ours, not whole or not to be served, which is left to whoever asks for it. */
async function metaOf({ options, isCondemned }: WalkHost, id: string, file: DiskFile): Promise<StoredMeta | undefined> {
  let bytes = await firstBytes(file, FIRST_BYTES)
  const digest = digestIn(bytes)
  if (digest?.toString('hex', 0, 16) !== id) return undefined
  const head: FileHead | string = decodeHead(bytes, digest)
  if (typeof head === 'string' || isCondemned(head.version)) return undefined
  if (bytes.byteLength < head.bodyStart) bytes = await firstBytes(file, head.bodyStart)
  const json = bytes.byteLength < head.bodyStart ? undefined : currentMeta(bytes, head)
  const meta = json && parseMeta(json, head.length)
  return meta?.v === 1 && meta.keepUntil > options.clock.wallMs() ? meta : undefined
}

async function firstBytes(file: DiskFile, count: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(count)
  return bytes.subarray(0, await file.read(bytes, 0))
}
