import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cache } from '@proxy/cache'
import { compose, createHeaders, createRequest, readAll } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { describe, expect, test, vi } from 'vitest'
import { type DiskFault, DiskStore } from '../src/index.ts'
import { ioOf } from '../src/store.ts'
import { bodyOf, filesIn, MIB, meta, mountTmpfs, openStore, patient, put } from './support.ts'

/** A cache over the store whose origin answers each path with a body of its own, never twice the same. */
function cached(store: DiskStore) {
  let answers = 0
  const handler = compose(cache({ store }))(async () => {
    const headers = createHeaders()
    headers['cache-control'] = 'max-age=60'
    return { status: 200, headers, body: Buffer.alloc(20_000, `answer ${++answers} `) }
  })
  return {
    async ask(path: string): Promise<{ status: number; bytes: number }> {
      const response = await handler(createRequest({ target: path }))
      return { status: response.status, bytes: (await readAll(response.body, MIB)).length }
    }
  }
}

describe('a full disk', () => {
  test('every request is answered, nothing rejects, and room that returns is used without a restart', async () => {
    const disk = await mountTmpfs(2 * MIB)
    const faults: DiskFault[] = []
    const clock = createFakeClock()
    const store = await openStore(disk.path, { maxBytes: 64 * MIB, onFault: (fault) => faults.push(fault), clock })
    const { ask } = cached(store)
    for (let i = 0; i < 300; i++) {
      expect(await ask(`/${i}`)).toEqual({ status: 200, bytes: 20_000 })
      await vi.waitUntil(() => store.stats().pendingWrites === 0, { interval: 1 })
      clock.advance(100)
    }
    expect(faults.some(({ kind, side }) => kind === 'full' && side === 'write')).toBe(true)
    expect(faults.length, 'each kind once a minute and side').toBeLessThanOrEqual(2)
    const before = store.stats()
    // It gave up old entries instead of standing still: writes went on in the room that there is.
    expect(before.evictions).toBeGreaterThan(20)
    expect(before.writes).toBeGreaterThan(200)
    clock.advance(2000)
    await store.delete('nothing')
    for (let i = 0; i < 20; i++) await put(store, `later ${i}`, randomBytes(20_000))
    expect(store.stats().writeBreaker).toBe('closed')
    expect(store.stats().writes).toBeGreaterThan(before.writes + 11)
  })

  test('somebody else fills it: commits resolve to false, what is stored stays readable, and writes come back with the room', async () => {
    const disk = await mountTmpfs(4 * MIB)
    const clock = createFakeClock()
    const store = await openStore(disk.path, { maxBytes: 64 * MIB, clock })
    const kept = randomBytes(10_000)
    expect(await put(store, 'kept', kept)).toBe(true)
    const hog = join(disk.path, 'hog')
    await writeFile(hog, Buffer.alloc(8 * MIB)).catch(() => {})
    expect(await bodyOf(store, 'kept')).toEqual(kept)
    expect(await put(store, 'large', randomBytes(2 * MIB))).toBe(false)
    await store.get('large').then((entry) => expect(entry).toBeUndefined())
    for (let i = 0; i < 5; i++) await put(store, 'large', randomBytes(2 * MIB))
    expect(store.stats().writeBreaker).toBe('open')
    // What is full can be emptied: the entry may have been given up by now, but nothing is refused.
    await expect(store.delete('kept')).resolves.toEqual(expect.any(Boolean))
    await vi.waitUntil(async () => (await readdir(join(disk.path, 'tmp'))).length === 0)
    expect(await readdir(join(disk.path, 'tmp')), 'what was begun is removed').toEqual([])
    await rm(hog)
    clock.advance(2000)
    expect(await put(store, 'large', randomBytes(2 * MIB))).toBe(true)
  })
})

describe('a disk that is read-only', () => {
  test('hits go on, writes fail quietly and are soon not tried, and all comes back', async () => {
    const disk = await mountTmpfs(8 * MIB)
    const faults: DiskFault[] = []
    const clock = createFakeClock()
    const store = await openStore(disk.path, { onFault: (fault) => faults.push(fault), clock })
    const body = randomBytes(200_000)
    expect(await put(store, 'kept', body)).toBe(true)
    const entry = await store.get('kept', { body: 'none' })
    await disk.readOnly()
    expect(await put(store, 'new', body)).toBe(false)
    expect(store.stats().writeBreaker, 'the first one is enough').toBe('open')
    expect(store.put('other', meta()).failed).toBe(true)
    expect(await bodyOf(store, 'kept')).toEqual(body)
    await expect(store.delete('kept')).rejects.toMatchObject({ code: 'DISK_READ_ONLY', kind: 'read-only' })
    await expect(store.delete('kept')).rejects.toMatchObject({ code: 'DISK_UNAVAILABLE' })
    await expect(store.touch('kept', entry?.version as string, meta())).rejects.toMatchObject({ code: 'DISK_UNAVAILABLE' })
    clock.advance(1500)
    await expect(store.touch('kept', entry?.version as string, meta())).rejects.toMatchObject({ code: 'DISK_READ_ONLY' })
    entry?.discard()
    const { ask } = cached(store)
    for (let i = 0; i < 50; i++) expect(await ask(`/${i}`)).toEqual({ status: 200, bytes: 20_000 })
    expect(faults.map(({ kind, side }) => `${side} ${kind}`)).toContain('write read-only')
    expect(faults.length, 'each kind once a minute and side').toBeLessThanOrEqual(3)
    await disk.writable()
    clock.advance(1500)
    expect(await put(store, 'new', body)).toBe(true)
    expect(await bodyOf(store, 'new')).toEqual(body)
  })

  test('a store can begin on it, and serves what an earlier one left', async () => {
    const disk = await mountTmpfs(8 * MIB)
    const body = randomBytes(100_000)
    const first = await openStore(disk.path)
    await put(first, 'kept', body)
    await first.close()
    await disk.readOnly()
    const second = await openStore(disk.path)
    expect(second.stats().entries).toBe(1)
    expect(await bodyOf(second, 'kept')).toEqual(body)
    expect(await put(second, 'new', body)).toBe(false)
  })

  test('where the folders cannot be made, prepare says so, and requests are answered', async () => {
    const disk = await mountTmpfs(8 * MIB)
    await disk.readOnly()
    const store = new DiskStore({ ...patient, directory: join(disk.path, 'cache'), maxBytes: 8 * MIB })
    // Linux says EROFS, or ENOENT where it has just looked for the name.
    await expect(store.prepare()).rejects.toMatchObject({ code: expect.stringMatching(/^DISK_(READ_ONLY|IO)$/) })
    const { ask } = cached(store)
    expect(await ask('/')).toEqual({ status: 200, bytes: 20_000 })
    expect(await store.get('x')).toBeUndefined()
    await disk.writable()
    await store.close()
  })
})

// What the dead process had left could not be removed, and that ended the comparison as a whole: for an hour nothing was known of the files, and no size was kept.
test('what cannot be removed at the start does not keep the directory from being compared, and goes later', async () => {
  const disk = await mountTmpfs(64 * MIB)
  const directory = join(disk.path, 'cache')
  const maxBytes = 8 * MIB
  const first = await openStore(directory, { maxBytes })
  for (let i = 0; i < 7; i++) expect(await put(first, `old ${i}`, randomBytes(MIB - 10_000))).toBe(true)
  const [journal] = await vi.waitUntil(async () => {
    const found = (await filesIn(directory, 'index')).filter((path) => path.endsWith('.journal'))
    return found.length > 0 && found
  })
  await first.close()
  const [host] = journal!.split('/').at(-1)!.split('.')
  const leftOver = join(directory, 'tmp', `${host}.${2 ** 22 + 1}.0.0123456789ab.3`)
  await writeFile(leftOver, 'x')
  await rm(join(directory, 'index'), { recursive: true })
  await mkdir(join(directory, 'index'))
  await disk.readOnly()
  const clock = createFakeClock()
  const store = await openStore(directory, { maxBytes, clock })
  expect(store.stats().entries).toBe(7)
  await disk.writable()
  for (let i = 0; i < 7; i++) expect(await put(store, `new ${i}`, randomBytes(MIB - 10_000))).toBe(true)
  expect(store.stats().bytes).toBeLessThanOrEqual(maxBytes)
  expect((await filesIn(directory, 'v1')).length).toBe(store.stats().entries)
  clock.advance(10_000)
  await vi.waitUntil(async () => (await filesIn(directory, 'tmp')).length === 0, { timeout: 20_000 })
})

test('a comparison that failed is done again after seconds', async () => {
  const disk = await mountTmpfs(8 * MIB)
  const first = await openStore(disk.path)
  for (let i = 0; i < 20; i++) await put(first, `key ${i}`, randomBytes(1000))
  await first.close()
  const expected = (await filesIn(disk.path, 'v1')).length
  await rm(join(disk.path, 'index'), { recursive: true })
  // A folder that nobody can read, root neither: its name leads to itself.
  const entries = join(disk.path, 'v1')
  const aside = join(disk.path, 'aside')
  await rename(entries, aside)
  await mkdir(entries)
  await symlink('00', join(entries, '00'))
  const clock = createFakeClock()
  const faults: string[] = []
  const store = await openStore(disk.path, { clock, onFault: ({ kind, side }) => faults.push(`${side} ${kind}`) })
  expect(faults).toEqual(['index io'])
  expect(store.stats().entries).toBe(0)
  await rm(entries, { recursive: true })
  await rename(aside, entries)
  clock.advance(10_000)
  await vi.waitUntil(() => store.stats().entries === expected, { timeout: 20_000 })
})

// It was visible from when the disk did it until it was removed, and for good where that failed: what had been reported as not stored was served.
test('a commit that was given up and that the disk has done after all is not served, also where it cannot be removed', async () => {
  const disk = await mountTmpfs(8 * MIB)
  const store = await openStore(disk.path, { writeTimeoutMs: 200 })
  expect(await put(store, 'key', randomBytes(1000))).toBe(true)
  const io = ioOf(store)
  const rename = io.rename.bind(io)
  const answered = Promise.withResolvers<void>()
  let renamed = 0
  io.rename = async (from, to) => {
    if (renamed++ > 0) throw Object.assign(new Error('the disk failed'), { code: 'EIO' })
    await rename(from, to)
    await answered.promise
  }
  expect(await put(store, 'key', randomBytes(1000))).toBe(false)
  expect((await filesIn(disk.path, 'v1')).length).toBe(1)
  expect(await bodyOf(store, 'key')).toBeUndefined()
  await vi.waitUntil(() => renamed === 2)
  answered.resolve()
  await vi.waitUntil(() => renamed === 3)
  expect(await bodyOf(store, 'key')).toBeUndefined()
  expect((await filesIn(disk.path, 'v1')).length).toBe(1)
  io.rename = rename
  expect(await bodyOf(store, 'key')).toBeUndefined()
  await vi.waitUntil(async () => (await filesIn(disk.path, 'v1')).length === 0)
  const body = randomBytes(1000)
  expect(await put(store, 'key', body)).toBe(true)
  expect(await bodyOf(store, 'key')).toEqual(body)
})

test('a directory that is removed under the running store is made again', async () => {
  const disk = await mountTmpfs(8 * MIB)
  const directory = join(disk.path, 'cache')
  const store = await openStore(directory)
  expect(await put(store, 'a', randomBytes(1000))).toBe(true)
  await rm(directory, { recursive: true })
  expect(await bodyOf(store, 'a')).toBeUndefined()
  const body = randomBytes(1000)
  expect(await put(store, 'a', body)).toBe(true)
  expect(await bodyOf(store, 'a')).toEqual(body)
  expect((await filesIn(directory, 'v1')).length).toBe(1)
})
