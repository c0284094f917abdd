import { randomBytes, randomInt } from 'node:crypto'
import { readdir, readlink } from 'node:fs/promises'
import { readAll, toSource } from '@proxy/pipeline'
import { expect, test, vi } from 'vitest'
import { folder, MIB, meta, mountTmpfs, openStore } from './support.ts'

const MAX = 64 * MIB

test.each([1, 5000, 65_536, 131_072, 300_000, 3_000_001])('a write of %i bytes is read while it goes on, from any offset, whatever the pieces', async (length) => {
  const store = await openStore(await folder())
  const body = randomBytes(length)
  const writer = store.put('key', meta(length % 2 === 0 ? { length } : {}))
  const readers: { offset: number; read: Promise<Buffer> }[] = []
  const follow = (offset: number): void => void readers.push({ offset, read: readAll(writer.readFrom?.(offset) ?? null, MAX) })
  follow(0)
  for (let at = 0; at < length; ) {
    const piece = body.subarray(at, at + 1 + randomInt(200_000))
    at += piece.length
    if (!writer.write(piece)) await writer.drained()
    if (readers.length < 8) follow(randomInt(at))
  }
  const committed = writer.commit()
  follow(length)
  expect(await committed).toBe(true)
  for (const { offset, read } of readers) expect((await read).equals(body.subarray(offset)), `from ${offset}`).toBe(true)
})

// A follower had nothing before 256 KiB had been gathered and written, whatever had come long before: who joined a slow answer was left without it.
test('what was taken can be read at once, before any of it lies in the file and while it is on its way there', async () => {
  const store = await openStore(await folder())
  const body = randomBytes(1_000_000)
  const writer = store.put('key', meta())
  const followers: { offset: number; chunks: Uint8Array[]; bytes: number; ended: PromiseWithResolvers<void> }[] = []
  let written = 0
  for (const bytes of [1000, 64_536, 1, 130_000, 200_000, 5, 399_000, 205_458]) {
    const follower = { offset: randomInt(written + 1), chunks: [] as Uint8Array[], bytes: 0, ended: Promise.withResolvers<void>() }
    followers.push(follower)
    writer.write(body.subarray(written, written + bytes))
    written += bytes
    toSource(writer.readFrom?.(follower.offset) ?? null).start({
      data: (chunk) => {
        follower.chunks.push(chunk)
        follower.bytes += chunk.byteLength
        return true
      },
      end: () => follower.ended.resolve(),
      error: follower.ended.reject
    })
    await vi.waitUntil(() => followers.every(({ bytes: got, offset }) => got === written - offset))
  }
  expect(written).toBe(body.length)
  expect(await writer.commit()).toBe(true)
  for (const { offset, chunks, ended } of followers) {
    await ended.promise
    expect(Buffer.concat(chunks).equals(body.subarray(offset)), `from ${offset}`).toBe(true)
  }
})

test('a slow follower reads on after the commit, an overwrite and a delete', async () => {
  const store = await openStore(await folder())
  const body = randomBytes(2 * MIB)
  const writer = store.put('key', meta())
  if (!writer.write(body)) await writer.drained()
  const chunks: Uint8Array[] = []
  const ended = Promise.withResolvers<void>()
  const flow = toSource(writer.readFrom?.(0) ?? null).start({
    data: (chunk) => {
      chunks.push(chunk)
      return false
    },
    end: () => ended.resolve(),
    error: ended.reject
  })
  await vi.waitUntil(() => chunks.length > 0)
  expect(await writer.commit()).toBe(true)
  const other = store.put('key', meta())
  other.write(randomBytes(1000))
  expect(await other.commit()).toBe(true)
  expect(await store.delete('key')).toBe(true)
  const timer = setInterval(() => flow.resume(), 1)
  await ended.promise
  clearInterval(timer)
  expect(Buffer.concat(chunks).equals(body)).toBe(true)
})

// It looked for the file when it was made and when it waited for bytes, and did neither while it paused: the write ended, and its file with it.
test.each([100_000, 2 * MIB])('a follower that pauses before the write has a file gets all of %i bytes after the commit', async (length) => {
  const store = await openStore(await folder())
  const body = randomBytes(length)
  const writer = store.put('key', meta())
  writer.write(body.subarray(0, 50_000))
  const chunks: Uint8Array[] = []
  const ended = Promise.withResolvers<void>()
  let paused = true
  const flow = toSource(writer.readFrom?.(0) ?? null).start({
    data: (chunk) => {
      chunks.push(chunk)
      return !paused
    },
    end: () => ended.resolve(),
    error: ended.reject
  })
  await vi.waitUntil(() => chunks.length > 0)
  if (!writer.write(body.subarray(50_000))) await writer.drained()
  expect(await writer.commit()).toBe(true)
  expect(await store.delete('key')).toBe(true)
  expect(Buffer.concat(chunks).length).toBeLessThan(length)
  paused = false
  flow.resume()
  await ended.promise
  expect(Buffer.concat(chunks).equals(body)).toBe(true)
})

test('a follower of a write that fails gets an error, never an end', async () => {
  const disk = await mountTmpfs(MIB)
  const store = await openStore(disk.path)
  const writer = store.put('key', meta())
  const followed = readAll(writer.readFrom?.(0) ?? null, MAX)
  for (let i = 0; i < 8; i++) if (!writer.write(randomBytes(500_000))) await writer.drained()
  expect(writer.failed).toBe(true)
  expect(await writer.commit()).toBe(false)
  await expect(followed).rejects.toMatchObject({ code: 'DISK_ABORTED' })
})

test('a follower that leaves, or never starts, keeps nothing open', async () => {
  const directory = await folder()
  const store = await openStore(directory, { holdTimeoutMs: 100 })
  const writer = store.put('key', meta())
  if (!writer.write(randomBytes(MIB))) await writer.drained()
  toSource(writer.readFrom?.(0) ?? null).discard()
  const left = toSource(writer.readFrom?.(0) ?? null).start({ data: () => false, end() {}, error() {} })
  left.abort()
  writer.readFrom?.(0)
  expect(await writer.commit()).toBe(true)
  const open = async (): Promise<number> => {
    const links = await Promise.all((await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
    return links.filter((link) => link.startsWith(`${directory}/v1`) || link.startsWith(`${directory}/tmp`)).length
  }
  await vi.waitUntil(async () => (await open()) === 0, { timeout: 10_000 })
})
