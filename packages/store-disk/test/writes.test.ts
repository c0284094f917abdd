import { randomBytes, randomInt } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { readAll } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { expect, test, vi } from 'vitest'
import { DiskStore, type DiskStoreOptions } from '../src/index.ts'
import { bodyOf, digest, fileOf, filesIn, folder, MIB, meta, openStore, put } from './support.ts'

test('the size is bounded, what is used stays, what is not goes first, also after a restart', async () => {
  const directory = await folder()
  const options = { maxBytes: 4 * MIB }
  const first = await openStore(directory, options)
  for (let i = 0; i < 30; i++) {
    await put(first, `old ${i}`, randomBytes(50_000))
    await put(first, `favourite ${i}`, randomBytes(50_000))
  }
  await first.close()
  const store = await openStore(directory, options)
  let largest = 0
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 30; i++) await bodyOf(store, `favourite ${i}`)
    await put(store, `new ${round}`, randomBytes(50_000))
    largest = Math.max(largest, store.stats().bytes)
  }
  expect(largest).toBeLessThanOrEqual(4 * MIB)
  let favourites = 0
  for (let i = 0; i < 30; i++) if ((await bodyOf(store, `favourite ${i}`)) !== undefined) favourites++
  let old = 0
  for (let i = 0; i < 30; i++) if ((await bodyOf(store, `old ${i}`)) !== undefined) old++
  expect(favourites).toBeGreaterThanOrEqual(28)
  expect(old).toBeLessThan(20)
  expect(store.stats().evictions).toBeGreaterThan(10)
  expect((await filesIn(directory, 'v1')).length).toBe(store.stats().entries)
})

test('a writer asks to wait while the disk has a megabyte to write, and what does not fit into maxPendingBytes is dropped', async () => {
  const store = await openStore(await folder(), { maxPendingBytes: 4 * MIB })
  const writer = store.put('key', meta())
  const chunk = randomBytes(MIB)
  expect(writer.write(chunk)).toBe(false)
  await writer.drained()
  expect(store.stats().pendingBytes).toBeLessThan(MIB)
  for (let i = 0; i < 10; i++) if (!writer.write(chunk)) await writer.drained()
  expect(await writer.commit()).toBe(true)
  const pushy = store.put('pushy', meta())
  for (let i = 0; i < 10; i++) pushy.write(chunk)
  expect(pushy.failed).toBe(true)
  await pushy.drained()
  expect(await pushy.commit()).toBe(false)
  expect(store.stats().droppedWrites['no-room']).toBe(1)
  await vi.waitUntil(() => store.stats().pendingBytes === 0)
  expect((await bodyOf(store, 'key'))?.length).toBe(11 * MIB)
})

test('metadata that is too large is not stored', async () => {
  const store = await openStore(await folder())
  expect(await put(store, 'key', randomBytes(10), { url: 'x'.repeat(200_000) })).toBe(true)
  expect((await store.get('key'))?.meta.url.length).toBe(200_000)
  expect(await put(store, 'key', randomBytes(10), { url: 'x'.repeat(300_000) })).toBe(false)
  expect(store.stats().droppedWrites['too-large']).toBe(1)
})

test('after close everything is refused, and writes under way are finished before', async () => {
  const directory = await folder()
  const store = await openStore(directory)
  const writer = store.put('key', meta())
  writer.write(randomBytes(2 * MIB))
  const committed = writer.commit()
  await store.close()
  expect(await committed).toBe(true)
  await store.close()
  await expect(store.get('key')).rejects.toMatchObject({ code: 'DISK_CLOSED' })
  await expect(store.delete('key')).rejects.toMatchObject({ code: 'DISK_CLOSED' })
  await expect(store.prepare()).rejects.toMatchObject({ code: 'DISK_CLOSED' })
  expect(await put(store, 'other', randomBytes(10))).toBe(false)
  expect((await bodyOf(await openStore(directory), 'key'))?.length).toBe(2 * MIB)
  expect(await filesIn(directory, 'tmp')).toEqual([])
})

test('a listener of faults that throws ends nothing', async () => {
  const directory = await folder()
  const warned = new Promise((resolve) => process.once('warning', resolve))
  const store = await openStore(directory, {
    onFault: () => {
      throw new Error('the listener is broken')
    }
  })
  await put(store, 'key', randomBytes(10))
  await writeFile(fileOf(directory, 'key'), 'garbage')
  expect(await bodyOf(store, 'key')).toBeUndefined()
  expect(await warned).toMatchObject({ message: 'the listener is broken' })
})

test.each<[Partial<DiskStoreOptions>, typeof TypeError]>([
  [{ directory: '' }, TypeError],
  [{ directory: 'a\0b' }, TypeError],
  [{ directory: 5 as unknown as string }, TypeError],
  [{ maxBytes: '1GB' as unknown as number }, TypeError],
  [{ maxBytes: Number.NaN }, RangeError],
  [{ maxBytes: 1000 }, RangeError],
  [{ maxEntryBytes: 0 }, RangeError],
  [{ maxEntryBytes: 2 ** 40 }, RangeError],
  [{ readTimeoutMs: -1 }, RangeError],
  [{ writeTimeoutMs: 2 ** 31 }, RangeError],
  [{ maxOperations: 0 }, RangeError],
  [{ breaker: { failureThreshold: 0 } }, RangeError]
])('options that cannot be meant: %o', (options, kind) => {
  expect(() => new DiskStore({ directory: '/tmp/x', maxBytes: MIB, ...options })).toThrow(kind)
})

test('any order of operations does what a Map does', { timeout: 120_000 }, async () => {
  const directory = await folder()
  const clock = createFakeClock(Date.now())
  const options = { maxBytes: 64 * MIB, clock }
  let store = await openStore(directory, options)
  const model = new Map<string, { body: string; id: string; version: string }>()
  const keys = Array.from({ length: 12 }, (_, i) => `key ${i}`)
  const versions: string[] = ['no version at all']
  const counts = { put: 0, aborted: 0, touched: 0, deleted: 0, read: 0, restarts: 0 }
  for (let step = 0; step < 3000; step++) {
    const key = keys[randomInt(keys.length)] as string
    const known = model.get(key)
    const version = randomInt(3) === 0 ? (versions[randomInt(versions.length)] as string) : (known?.version ?? 'none')
    const dice = randomInt(100)
    if (dice < 30) {
      const body = randomBytes(randomInt(10) === 0 ? randomInt(700_000) : randomInt(3000))
      const id = `id ${step}`
      if (dice < 5) {
        const writer = store.put(key, meta({ id }))
        writer.write(body)
        writer.abort()
        counts.aborted++
      } else {
        expect(await put(store, key, body, { id })).toBe(true)
        const entry = await store.get(key, { body: 'none' })
        entry?.discard()
        versions.push(entry?.version as string)
        model.set(key, { body: digest(body), id, version: entry?.version as string })
        counts.put++
      }
    } else if (dice < 45) {
      const done = await store.touch(key, version, meta({ id: `touch ${step}` }))
      expect(done, `touch at step ${step}`).toBe(known?.version === version)
      if (done && known !== undefined) known.id = `touch ${step}`
      counts.touched += Number(done)
    } else if (dice < 55) {
      const only = randomInt(2) === 0 ? undefined : version
      const done = await store.delete(key, only)
      expect(done, `delete at step ${step}`).toBe(known !== undefined && (only === undefined || only === known.version))
      if (done) model.delete(key)
      counts.deleted += Number(done)
    } else if (dice < 99) {
      const entry = await store.get(key, { body: (['none', 'all', { start: 0, end: 5 }] as const)[randomInt(3)] as 'all' })
      expect(entry && { id: entry.meta.id, version: entry.version }, `step ${step}`).toEqual(known && { id: known.id, version: known.version })
      if (entry !== undefined) expect(digest(await readAll(await entry.open(), MIB))).toBe(known?.body)
      counts.read++
    } else {
      await store.close()
      store = await openStore(directory, options)
      counts.restarts++
    }
  }
  for (const count of Object.values(counts)) expect(count).toBeGreaterThan(5)
  await vi.waitUntil(() => store.stats().entries === model.size)
  expect((await filesIn(directory, 'v1')).length).toBe(model.size)
})
