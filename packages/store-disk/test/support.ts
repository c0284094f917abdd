import { execFile } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { CacheMeta, CacheStore } from '@proxy/cache'
import { type ByteRange, createHeaders, readAll } from '@proxy/pipeline'
import { onTestFinished, vi } from 'vitest'
import { DiskStore, type DiskStoreOptions } from '../src/index.ts'
import { nameOf, Places } from '../src/layout.ts'

const run = promisify(execFile)
export const MIB = 1024 * 1024
/** Deadlines that a busy machine keeps: only the tests of deadlines shorten them. */
export const patient = { readTimeoutMs: 20_000, writeTimeoutMs: 20_000, closeTimeoutMs: 20_000 }

/** A folder that goes with the test. */
export async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'proxy-disk-'))
  onTestFinished(() => rm(path, { recursive: true, force: true }))
  return path
}

export interface Mounted {
  readonly path: string
  readOnly(): Promise<void>
  writable(): Promise<void>
}

/** A small file system of its own, which can be full or read-only for root as well. */
export async function mountTmpfs(bytes: number): Promise<Mounted> {
  const path = join(tmpdir(), `proxy-disk-${randomUUID()}`)
  await mkdir(path)
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path])
  } catch (error) {
    throw new Error('these tests mount small file systems, for which they have to run as root with the right to mount (CAP_SYS_ADMIN)', { cause: error })
  }
  onTestFinished(async () => {
    await run('umount', ['-l', path])
    await rm(path, { recursive: true, force: true })
  })
  return {
    path,
    readOnly: async () => void (await run('mount', ['-o', 'remount,ro', path])),
    writable: async () => void (await run('mount', ['-o', 'remount,rw', path]))
  }
}

/** A store that closes with the test, its index loaded and compared with the directory. */
export async function openStore(directory: string, options: Partial<DiskStoreOptions> = {}): Promise<DiskStore> {
  const store = new DiskStore({ ...patient, directory, maxBytes: 256 * MIB, ...options })
  onTestFinished(() => store.close())
  await store.prepare()
  await surveyed(store)
  return store
}

export const surveyed = (store: DiskStore): Promise<unknown> => vi.waitUntil(() => !store.stats().surveying, { timeout: 60_000, interval: 5 })

export function meta(changes: Partial<CacheMeta> = {}): CacheMeta {
  const now = Date.now()
  const headers = createHeaders()
  headers['content-type'] = 'image/png'
  return { v: 1, url: 'https://example.org/a.png', namespace: 'test', status: 200, headers, requestTime: now, responseTime: now, initialAgeMs: 0, keepUntil: now + 3_600_000, tags: [], ...changes }
}

export const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export async function put(store: CacheStore, key: string, bytes: Uint8Array, changes: Partial<CacheMeta> = {}): Promise<boolean> {
  const writer = store.put(key, meta(changes))
  for (let at = 0; at < bytes.byteLength; at += 65_536) if (!writer.write(bytes.subarray(at, at + 65_536))) await writer.drained()
  return writer.commit()
}

/** The body under a key, undefined for a miss. */
export async function bodyOf(store: CacheStore, key: string, range?: ByteRange): Promise<Buffer | undefined> {
  const entry = await store.get(key, { body: range ?? 'all' })
  return entry && readAll(await entry.open(range), 256 * MIB)
}

/** Where the file of a key lies. */
export const fileOf = (directory: string, key: string): string => new Places(directory).file(nameOf(key).id)

export const filesIn = async (directory: string, part: string): Promise<string[]> =>
  (await readdir(join(directory, part), { recursive: true, withFileTypes: true }).catch(() => [])).filter((one) => one.isFile()).map((one) => join(one.parentPath, one.name))
