import { randomBytes } from 'node:crypto'
import { rename, rm, symlink, writeFile } from 'node:fs/promises'
import { cache } from '@proxy/cache'
import { compose, createHeaders, createRequest, readAll } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { expect, test, vi } from 'vitest'
import { ioOf } from '../src/store.ts'
import { bodyOf, fileOf, filesIn, folder, MIB, meta, mountTmpfs, openStore, put } from './support.ts'

test('removes what matches, by its metadata as of the last touch, and leaves the rest and what is not ours', async () => {
  const directory = await folder()
  const clock = createFakeClock(Date.now())
  const store = await openStore(directory, { clock })
  for (let i = 0; i < 8; i++) await put(store, `key ${i}`, randomBytes(i % 2 === 0 ? 100 : 300_000), { url: `https://example.org/${i}` })
  await put(store, 'empty', Buffer.alloc(0), { url: 'https://example.org/0' })
  await put(store, 'long', Buffer.from('x'), { url: `https://example.org/0?${'x'.repeat(20_000)}` })
  await put(store, 'outlived', Buffer.from('x'), { url: 'https://example.org/0', keepUntil: clock.wallMs() + 1000 })
  clock.advance(2000)
  const touched = await store.get('key 3', { body: 'none' })
  expect(await store.touch('key 3', touched?.version ?? '', meta({ url: 'https://example.org/0' }))).toBe(true)
  const held = await store.get('key 3')
  await writeFile(fileOf(directory, 'key 1'), 'not ours')
  await rename(fileOf(directory, 'key 7'), fileOf(directory, 'key 6'))
  const isSought = ({ url }: { url: string }): boolean => url.startsWith('https://example.org/0')
  expect(await store.sweep(isSought, true)).toBe(4)
  expect(await bodyOf(store, 'key 0')).toHaveLength(100)
  const before = store.stats().entries
  expect(await store.sweep(isSought, false)).toBe(4)
  expect(store.stats().entries).toBe(before - 4)
  for (const key of ['key 0', 'empty', 'long', 'key 3']) expect(await store.get(key), key).toBeUndefined()
  for (const i of [2, 4, 5]) expect((await bodyOf(store, `key ${i}`))?.length).toBe(i % 2 === 0 ? 100 : 300_000)
  expect((await readAll((await held?.open()) ?? null, MIB)).length, 'an entry keeps its file').toBe(300_000)
  expect(await store.sweep(isSought, false)).toBe(0)
  expect(await filesIn(directory, 'tmp')).toEqual([])
})

test('reads one head of each file, two at a time', async () => {
  const store = await openStore(await folder())
  for (let i = 0; i < 50; i++) await put(store, `key ${i}`, randomBytes(200_000))
  const io = ioOf(store)
  const open = io.open.bind(io)
  let opened = 0
  let active = 0
  let most = 0
  io.open = async (...args) => {
    opened++
    most = Math.max(most, ++active)
    try {
      return await open(...args)
    } finally {
      active--
    }
  }
  const before = store.stats().bytesRead
  expect(await store.sweep(() => true, true)).toBe(50)
  expect(store.stats().bytesRead - before).toBe(50 * 4096)
  expect([opened, most <= 2]).toEqual([50, true])
})

test('what cannot be removed, or looked at, makes it reject when it has seen the rest', async () => {
  const disk = await mountTmpfs(8 * MIB)
  const store = await openStore(disk.path)
  for (let i = 0; i < 10; i++) await put(store, `key ${i}`, randomBytes(100))
  const path = fileOf(disk.path, 'key 4')
  await rm(path)
  await symlink(path, path)
  await expect(store.sweep(() => true, false)).rejects.toMatchObject({ code: 'DISK_IO' })
  await vi.waitUntil(() => store.stats().entries <= 1)
  await rm(path)
  await put(store, 'other', randomBytes(100))
  await disk.readOnly()
  await expect(store.sweep(() => true, false)).rejects.toMatchObject({ code: 'DISK_READ_ONLY' })
  expect(await store.sweep(() => true, true)).toBe(1)
  expect(store.stats().writeBreaker).toBe('closed')
  await disk.writable()
  expect(await store.sweep(() => true, false)).toBe(1)
})

test('ends with the store', async () => {
  const store = await openStore(await folder())
  for (let i = 0; i < 200; i++) await put(store, `key ${i}`, randomBytes(10))
  let seen = 0
  let closing: Promise<void> | undefined
  const sweeping = store.sweep(() => {
    if (++seen === 1) closing = store.close()
    return false
  }, false)
  expect(await sweeping).toBe(0)
  expect(seen).toBeLessThan(10)
  await expect(store.sweep(() => true, false)).rejects.toMatchObject({ code: 'DISK_CLOSED' })
  await closing
})

// Purged files lay there until somebody asked for them, and what a purge said to have touched left them out.
test('a purge removes the files it is about and counts them', async () => {
  const directory = await folder()
  const store = await openStore(directory)
  const layer = cache({ store })
  const handler = compose(layer)(async () => {
    const headers = createHeaders()
    headers['cache-control'] = 'max-age=60'
    return { status: 200, headers, body: randomBytes(1000) }
  })
  for (const target of ['/a/1', '/a/2', '/b/1']) await readAll((await handler(createRequest({ target }))).body, MIB)
  await vi.waitUntil(() => store.stats().writes === 3)
  expect(await layer.purge({ prefix: 'http://localhost/a/', soft: true })).toEqual({ touched: 2 })
  expect((await filesIn(directory, 'v1')).length).toBe(3)
  expect(await layer.purge({ prefix: 'http://localhost/a/' })).toEqual({ touched: 2 })
  expect((await filesIn(directory, 'v1')).length).toBe(1)
})
