import { sampleMeta } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import { SharedBody, type SharedBodyOptions } from '../src/shared-body.ts'
import type { CacheWriter } from '../src/store.ts'
import { headers, PushSource } from './support.ts'

export const WINDOW = 200_000
export const CHUNK = 50_000

export const meta = sampleMeta({ id: 'this', headers: headers({ etag: '"strong"' }) })

type Changes = Partial<SharedBodyOptions> & { wrap?: (writer: CacheWriter) => CacheWriter; memory?: MemoryStore }

export interface Setup {
  body: SharedBody
  source: PushSource
  /** The first reader's body. */
  leader: ReturnType<SharedBody['begin']>
  store: MemoryStore
  unkept: number
  errors: unknown[]
}

export function setup(changes: Changes = {}): Setup {
  const { wrap, memory, ...options } = changes
  const store = memory ?? new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 32 << 20 })
  const writer = (options.store ?? store).put('key', meta)
  const result = { store, unkept: 0, errors: [] as unknown[], source: new PushSource() }
  const body = new SharedBody({
    store,
    key: 'key',
    meta,
    writer: wrap?.(writer) ?? writer,
    length: undefined,
    windowBytes: WINDOW,
    maxObjectBytes: 64 << 20,
    finishBytes: 1 << 20,
    storeStallMs: 60_000,
    onUnkept: () => result.unkept++,
    onStoreError: (error) => result.errors.push(error),
    ...options
  })
  return Object.assign(result, { body, leader: body.begin(result.source) })
}

/** Sends the bytes from `from` up to `to`, wanted or not, in chunks of `CHUNK`. */
export function send(source: PushSource, bytes: Buffer, from = 0, to = bytes.length): void {
  for (let at = from; at < to; at += CHUNK) source.push(bytes.subarray(at, Math.min(at + CHUNK, to)))
}

/** Sends until the reader's side wants a pause; how many bytes were sent. */
export function sendWhileWanted(source: PushSource, bytes: Buffer, from: number): number {
  let at = from
  while (at < bytes.length && !source.paused) {
    source.push(bytes.subarray(at, at + CHUNK))
    at += CHUNK
  }
  return Math.min(at, bytes.length)
}

/** A writer that cannot be read while it is written: what most stores give. */
export function withoutReadFrom(writer: CacheWriter): CacheWriter {
  return { write: (chunk) => writer.write(chunk), drained: () => writer.drained(), commit: () => writer.commit(), abort: () => writer.abort() }
}
