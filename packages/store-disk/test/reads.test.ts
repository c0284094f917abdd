import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { constants } from 'node:fs'
import { mkdir, open, readdir, readFile, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { BLOCK_BYTES } from '@proxy/cache/blocks'
import { type Body, readAll, toSource } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { expect, test, vi } from 'vitest'
import { startWorker } from './child-process.ts'
import { bodyOf, fileOf, folder, MIB, openStore, put } from './support.ts'

test('a range reads the head and the blocks it lies in, not the file', async () => {
  const store = await openStore(await folder())
  const body = randomBytes(20 * MIB)
  expect(await put(store, 'key', body)).toBe(true)
  for (const [start, end, blocks] of [
    [0, 99, 1],
    [10 * MIB, 10 * MIB + 99, 1],
    [5 * BLOCK_BYTES - 1, 5 * BLOCK_BYTES, 2],
    [20 * MIB - 10, 20 * MIB - 1, 1],
    [3 * MIB, 4 * MIB, 17]
  ] as const) {
    const before = store.stats().bytesRead
    expect((await bodyOf(store, 'key', { start, end }))?.equals(body.subarray(start, end + 1)), `${start}-${end}`).toBe(true)
    expect(store.stats().bytesRead - before).toBeLessThanOrEqual(16 * 1024 + blocks * (BLOCK_BYTES + 4))
  }
  const before = store.stats().bytesRead
  ;(await store.get('key', { body: 'none' }))?.discard()
  expect(store.stats().bytesRead - before).toBeLessThanOrEqual(16 * 1024)
})

test('a reader that pauses makes the store read no further', async () => {
  const store = await openStore(await folder())
  await put(store, 'key', randomBytes(20 * MIB))
  const before = store.stats().bytesRead
  const flow = toSource(await (await store.get('key'))!.open()).start({ data: () => false, end() {}, error() {} })
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(store.stats().bytesRead - before).toBeLessThan(400_000)
  expect(store.stats().openFiles).toBe(1)
  flow.abort()
  await vi.waitUntil(() => store.stats().openFiles === 0)
})

test('an entry keeps its own bytes through an overwrite, a delete and its eviction', async () => {
  const store = await openStore(await folder(), { maxBytes: 8 * MIB, maxEntryBytes: 4 * MIB })
  const body = randomBytes(2 * MIB)
  await put(store, 'key', body)
  const entries = [await store.get('key'), await store.get('key'), await store.get('key', { body: 'none' })]
  await put(store, 'key', randomBytes(2 * MIB))
  expect(await readAll(await entries[0]!.open(), 8 * MIB)).toEqual(body)
  await store.delete('key')
  expect(await readAll(await entries[1]!.open(), 8 * MIB)).toEqual(body)
  for (let i = 0; i < 10; i++) await put(store, `other ${i}`, randomBytes(2 * MIB))
  expect(await readAll(await entries[2]!.open({ start: 1_000_000, end: 1_999_999 }), 8 * MIB)).toEqual(body.subarray(1_000_000, 2_000_000))
  await vi.waitUntil(() => store.stats().openFiles === 0)
})

test('entries that nobody opens and bodies that nobody starts let go of their files; open files are bounded', async () => {
  const store = await openStore(await folder(), { maxOpenFiles: 3, holdTimeoutMs: 100 })
  const keys = ['a', 'b', 'c', 'd']
  for (const key of keys) await put(store, key, randomBytes(MIB))
  const held = await Promise.all(keys.slice(0, 3).map((key) => store.get(key)))
  await expect(store.get('d')).rejects.toMatchObject({ code: 'DISK_BUSY' })
  const body = toSource(await held[0]!.open())
  await vi.waitUntil(() => store.stats().openFiles === 0)
  await expect(held[1]!.open()).rejects.toMatchObject({ code: 'DISK_GONE' })
  await expect(readAll(body, 8 * MIB)).rejects.toMatchObject({ code: 'DISK_GONE' })
  expect(store.stats().readBreaker).toBe('closed')
  expect((await bodyOf(store, 'd'))?.length).toBe(MIB)
})

// Each lookup compared the count before it opened its file and counted it at the end: six hundred that came together opened six hundred files.
test('lookups that begin together keep to the bound of open files, and small entries are read all the same', async () => {
  const store = await openStore(await folder(), { maxOpenFiles: 3 })
  const keys = Array.from({ length: 20 }, (_, i) => `key ${i}`)
  for (const key of keys) await put(store, key, randomBytes(200_000))
  await put(store, 'small', randomBytes(60_000))
  const outcomes = await Promise.allSettled(keys.map((key) => store.get(key)))
  const entries = outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : undefined)).filter((entry) => entry !== undefined)
  expect(entries.length).toBe(3)
  expect(store.stats().openFiles).toBe(3)
  for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'DISK_BUSY' })
  expect((await bodyOf(store, 'small'))?.length).toBe(60_000)
  for (const entry of entries) entry.discard()
  await vi.waitUntil(() => store.stats().openFiles === 0)
  expect((await bodyOf(store, 'key 9'))?.length).toBe(200_000)
})

// Slow clients of one large file took a descriptor each, and the five hundred and thirteenth got nothing.
test('the readers of one version share a file, those of another have their own', async () => {
  const store = await openStore(await folder(), { maxOpenFiles: 2 })
  const bodies = [randomBytes(MIB), randomBytes(MIB), randomBytes(MIB)]
  const open = (): Promise<Body[]> => Promise.all(Array.from({ length: 50 }, async () => (await store.get('key'))!.open()))
  await put(store, 'key', bodies[0]!)
  const first = await open()
  expect(store.stats().openFiles).toBe(1)
  await put(store, 'key', bodies[1]!)
  const second = await open()
  expect(store.stats().openFiles).toBe(2)
  await put(store, 'key', bodies[2]!)
  await expect(store.get('key')).rejects.toMatchObject({ code: 'DISK_BUSY' })
  const [left, ...others] = first
  toSource(left!).discard()
  for (const body of others) expect((await readAll(body, 8 * MIB)).equals(bodies[0]!)).toBe(true)
  await vi.waitUntil(() => store.stats().openFiles === 1)
  expect((await bodyOf(store, 'key'))?.equals(bodies[2]!)).toBe(true)
  for (const body of second) expect((await readAll(body, 8 * MIB)).equals(bodies[1]!)).toBe(true)
  await vi.waitUntil(() => store.stats().openFiles === 0)
})

// Each write that was given up left its bytes with an operation that waited for the disk, and counted no more: a disk that hung for long gathered them all.
test('what writes leave with a disk that hangs counts until the disk has let go of it', async () => {
  const directory = await folder()
  const maxPendingBytes = 4 * MIB
  const store = await openStore(directory, { readTimeoutMs: 50, writeTimeoutMs: 50, maxOperations: 2, maxPendingBytes, breaker: { failureThreshold: 1_000_000 } })
  const path = fileOf(directory, 'hangs')
  await mkdir(dirname(path), { recursive: true })
  await promisify(execFile)('mkfifo', [path])
  // They take all the threads that the store may have.
  await Promise.allSettled([store.get('hangs'), store.get('hangs')])
  for (let round = 0; round < 3; round++) {
    const stored = await Promise.all(Array.from({ length: 40 }, (_, i) => put(store, `${round} ${i}`, randomBytes(200_000))))
    expect(stored).not.toContain(true)
    expect(store.stats().pendingBytes).toBeGreaterThan(maxPendingBytes - 300_000)
    expect(store.stats().pendingBytes).toBeLessThanOrEqual(maxPendingBytes)
  }
  expect(store.stats().droppedWrites['no-room']).toBe(100)
  const end = await openFifo(path)
  await rm(path)
  await vi.waitUntil(() => store.stats().pendingBytes === 0, { timeout: 20_000 })
  await vi.waitUntil(() => put(store, 'good', randomBytes(200_000)), { timeout: 20_000 })
  await end.close()
})

test('a disk that hangs is a miss in time, then costs nothing, leaves a thread to others, and comes back', async () => {
  const directory = await folder()
  const clock = createFakeClock(Date.now())
  const faults: string[] = []
  const store = await openStore(directory, { readTimeoutMs: 200, clock, onFault: ({ kind, side }) => faults.push(`${side} ${kind}`) })
  await put(store, 'good', randomBytes(100))
  // Opening a FIFO that nobody writes to hangs like a disk that does not answer.
  const path = fileOf(directory, 'hangs')
  await mkdir(dirname(path), { recursive: true })
  await promisify(execFile)('mkfifo', [path])
  const gets = Array.from({ length: 5 }, () => store.get('hangs').catch((error: { code: string }) => error.code))
  expect(await Promise.all(gets)).toEqual(Array.from({ length: 5 }, () => 'DISK_TIMEOUT'))
  expect(store.stats()).toMatchObject({ timeouts: 5, readBreaker: 'open' })
  expect(faults).toEqual(['read timeout'])
  await expect(store.get('good')).rejects.toMatchObject({ code: 'DISK_UNAVAILABLE' })
  expect((await lookup('localhost')).address).toBeTruthy()
  const signal = AbortSignal.timeout(50)
  clock.advance(1500)
  await expect(store.get('good', { signal })).rejects.toMatchObject({ code: 'DISK_ABORTED' })
  // Somebody opens the other end: what hung goes on.
  const end = await openFifo(path)
  await rm(path)
  clock.advance(1500)
  await vi.waitUntil(
    () =>
      store.get('good').then(
        (entry) => entry !== undefined,
        () => {
          clock.advance(1500)
          return false
        }
      ),
    { timeout: 20_000 }
  )
  await end.close()
})

// Timers that are due run before what the disk has answered is looked at: one pause of the process was ten disks that hang, and opened the breaker.
test('a pause of the process is no disk that hangs', async () => {
  const store = await openStore(await folder(), { readTimeoutMs: 2000, writeTimeoutMs: 2000 })
  for (let i = 0; i < 10; i++) await put(store, `key ${i}`, randomBytes(1000))
  const reads = Array.from({ length: 10 }, (_, i) => bodyOf(store, `key ${i}`))
  const writes = Array.from({ length: 10 }, (_, i) => put(store, `new ${i}`, randomBytes(1000)))
  await new Promise((resolve) => setImmediate(resolve))
  const until = performance.now() + 2500
  while (performance.now() < until);
  expect((await Promise.all(reads)).map((body) => body?.length)).toEqual(Array.from({ length: 10 }, () => 1000))
  expect(await Promise.all(writes)).toEqual(Array.from({ length: 10 }, () => true))
  expect(store.stats()).toMatchObject({ timeouts: 0, readBreaker: 'closed', writeBreaker: 'closed' })
})

/** Without waiting for a reader, and without a thread of the pool, of which the test may have none left. */
const openFifo = async (path: string) => open(path, constants.O_RDWR | constants.O_NONBLOCK)

test('what nobody can use any more is a miss and goes', async () => {
  const directory = await folder()
  const clock = createFakeClock(Date.now())
  const store = await openStore(directory, { clock })
  await put(store, 'key', randomBytes(10), { keepUntil: clock.wallMs() + 1000 })
  expect((await bodyOf(store, 'key'))?.length).toBe(10)
  clock.advance(2000)
  expect(await bodyOf(store, 'key')).toBeUndefined()
  await vi.waitUntil(() =>
    stat(fileOf(directory, 'key'))
      .then(() => false)
      .catch(() => true)
  )
  await vi.waitUntil(() => store.stats().entries === 0)
  expect(store.stats().broken).toBe(0)
})

test('the name of a file is the hash of its key and nothing of the URL', async () => {
  const directory = await folder()
  const store = await openStore(directory)
  for (const key of ['https://example.org/../../etc/passwd', '/', '..', 'a\0b', 'x'.repeat(10_000)]) expect(await put(store, key, randomBytes(10))).toBe(true)
  const names = (await readdir(directory, { recursive: true })).filter((name) => name.startsWith('v1/'))
  expect(names.length).toBe(10)
  for (const name of names) expect(name).toMatch(/^v1\/([0-9a-f]{2})(\/\1[0-9a-f]{30})?$/)
})

test('no synchronous function of node:fs is called, nor named in the sources', async () => {
  const worker = startWorker('./child-no-sync.ts', [await folder()])
  expect(await worker.ended()).toBe(0)
  expect(worker.lines.at(-1)).toBe('done 0 true true true true')
  const sources = new URL('../src/', import.meta.url)
  for (const name of await readdir(sources)) expect(await readFile(new URL(name, sources), 'utf8'), name).not.toMatch(/Sync\b/)
})
