import { randomBytes, randomInt } from 'node:crypto'
import { copyFile, mkdir, open, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { BLOCK_BYTES, BLOCK_OVERHEAD_BYTES } from '@proxy/cache/blocks'
import { readAll } from '@proxy/pipeline'
import { describe, expect, test, vi } from 'vitest'
import type { DiskFault, DiskStore } from '../src/index.ts'
import { FIXED_BYTES } from '../src/layout.ts'
import { bodyOf, digest, fileOf, folder, MIB, meta, mountTmpfs, openStore, put } from './support.ts'

const FRAME = BLOCK_BYTES + BLOCK_OVERHEAD_BYTES

/** Reads an entry as a client would; what comes must be the bytes or nothing at all. */
async function outcome(store: DiskStore, key: string, body: Buffer): Promise<'whole' | 'miss' | 'refused' | 'broken off'> {
  const entry = await store.get(key)
  if (entry === undefined) return 'miss'
  const opened = await entry.open().catch(() => undefined)
  if (opened === undefined) return 'refused'
  try {
    expect(digest(await readAll(opened, 64 * MIB))).toBe(digest(body))
    return 'whole'
  } catch (error) {
    expect(error).toMatchObject({ code: 'DISK_BROKEN' })
    return 'broken off'
  }
}

/** Where the body begins in a file. */
async function bodyStart(path: string): Promise<number> {
  return FIXED_BYTES + 2 * (await readFile(path)).readUInt32BE(64)
}

test.each([0, 5, 10_000, 3 * BLOCK_BYTES, 1_000_003])('a file of a body of %i bytes cut at every boundary is a miss before a byte is sent, is removed, and heals', async (length) => {
  const directory = await folder()
  const store = await openStore(directory)
  const body = randomBytes(length)
  const path = fileOf(directory, 'key')
  await put(store, 'key', body)
  const { size } = await stat(path)
  const start = await bodyStart(path)
  const edges = [0, 1, 7, 8, 24, 56, 64, 68, FIXED_BYTES - 1, FIXED_BYTES, FIXED_BYTES + 12, (FIXED_BYTES + start) >> 1, start - 1, start, start + 1, start + 4, size - 1]
  for (let at = start; at < size; at += FRAME) edges.push(at - 1, at, at + 1, at + BLOCK_OVERHEAD_BYTES)
  for (const cut of new Set(edges.filter((at) => at < size))) {
    await truncate(path, cut)
    expect(await outcome(store, 'key', body), `cut at ${cut} of ${size}`).toBe('miss')
    await vi.waitUntil(() =>
      stat(path)
        .then(() => false)
        .catch(() => true)
    )
    expect(await put(store, 'key', body)).toBe(true)
    expect(await outcome(store, 'key', body)).toBe('whole')
  }
})

test('flipped bits: no wrong byte is delivered, whichever part they hit, and the file goes', async () => {
  const directory = await folder()
  const faults: DiskFault[] = []
  const store = await openStore(directory, { onFault: (fault) => faults.push(fault) })
  const seen = { whole: 0, miss: 0, refused: 0, 'broken off': 0 }
  for (const length of [700, 50_000, 600_000]) {
    const body = randomBytes(length)
    for (let round = 0; round < 120; round++) {
      const key = `key ${length} ${round}`
      await put(store, key, body)
      const path = fileOf(directory, key)
      const start = await bodyStart(path)
      const { size } = await stat(path)
      // A third each in the fixed part, the metadata and the blocks.
      const [from, to] = [
        [0, FIXED_BYTES],
        [FIXED_BYTES, start],
        [start, size]
      ][round % 3] as [number, number]
      const at = randomInt(from, to)
      const file = await open(path, 'r+')
      const byte = Buffer.alloc(1)
      await file.read(byte, 0, 1, at)
      byte[0] = (byte[0] as number) ^ (1 << randomInt(8))
      await file.write(byte, 0, 1, at)
      await file.close()
      const result = await outcome(store, key, body)
      seen[result]++
      // Bytes of a slot that hold nothing may be anything.
      if (round % 3 !== 1) expect(result, `bit at ${at} of ${size}`).not.toBe('whole')
      if (result !== 'whole')
        await vi.waitUntil(() =>
          stat(path)
            .then(() => false)
            .catch(() => true)
        )
    }
  }
  expect(seen.miss).toBeGreaterThan(100)
  expect(seen['broken off'] + seen.refused).toBeGreaterThan(5)
  expect(store.stats().broken).toBe(360 - seen.whole)
  expect(faults.every(({ kind }) => kind === 'broken')).toBe(true)
})

describe('a file that is not this key’s', () => {
  test('another key’s, garbage, a folder: misses', async () => {
    const directory = await folder()
    const store = await openStore(directory)
    await put(store, 'one', randomBytes(5000))
    const other = fileOf(directory, 'two')
    await mkdir(dirname(other), { recursive: true })
    await copyFile(fileOf(directory, 'one'), other)
    expect(await bodyOf(store, 'two')).toBeUndefined()
    await writeFile(fileOf(directory, 'one'), randomBytes(100_000))
    expect(await bodyOf(store, 'one')).toBeUndefined()
    await mkdir(fileOf(directory, 'three'), { recursive: true })
    expect(await bodyOf(store, 'three')).toBeUndefined()
  })

  test('a block of another version at its place is told', async () => {
    const directory = await folder()
    const store = await openStore(directory)
    const old = randomBytes(400_000)
    await put(store, 'key', old)
    const path = fileOf(directory, 'key')
    const before = await readFile(path)
    await put(store, 'key', randomBytes(400_000))
    const start = await bodyStart(path)
    const file = await open(path, 'r+')
    await file.write(before, start + 5 * FRAME, 1000, start + 5 * FRAME)
    await file.close()
    expect(await outcome(store, 'key', old)).toBe('broken off')
  })
})

test('what is broken and cannot be removed stays a miss', async () => {
  const disk = await mountTmpfs(8 * MIB)
  const store = await openStore(disk.path)
  const body = randomBytes(800_000)
  await put(store, 'key', body)
  const path = fileOf(disk.path, 'key')
  const file = await open(path, 'r+')
  await file.write(Buffer.from([1, 2, 3, 4, 5, 6]), 0, 6, 700_000)
  await file.close()
  await disk.readOnly()
  expect(await outcome(store, 'key', body)).toBe('broken off')
  await vi.waitUntil(async () => (await outcome(store, 'key', body)) === 'miss')
  await disk.writable()
})

describe('touch', () => {
  test('cut off anywhere leaves the old metadata or the new', async () => {
    const directory = await folder()
    const store = await openStore(directory)
    await put(store, 'key', Buffer.from('hello'), { id: 'a' })
    const path = fileOf(directory, 'key')
    const version = (await store.get('key'))?.version as string
    const before = await readFile(path)
    expect(await store.touch('key', version, meta({ id: 'b', status: 203 }))).toBe(true)
    const after = await readFile(path)
    expect(after.length).toBe(before.length)
    const ids = new Set<string | undefined>()
    for (let cut = 0; cut <= after.length; cut += 7) {
      // As much of the new content as was written when the machine stopped.
      await writeFile(path, Buffer.concat([after.subarray(0, cut), before.subarray(cut)]))
      const entry = await store.get('key')
      expect(entry && String(await readAll(await entry.open(), 10))).toBe('hello')
      ids.add(entry?.meta.id)
    }
    expect(ids).toEqual(new Set(['a', 'b']))
  })

  test('again and again; what does not fit is refused and leaves what was there', async () => {
    const directory = await folder()
    const store = await openStore(directory)
    await put(store, 'key', Buffer.from('hello'))
    const version = (await store.get('key'))?.version as string
    for (let i = 0; i < 20; i++) {
      expect(await store.touch('key', version, meta({ id: `touch ${i}` }))).toBe(true)
      expect((await store.get('key'))?.meta.id).toBe(`touch ${i}`)
    }
    expect(await store.touch('key', version, meta({ url: 'x'.repeat(5000) }))).toBe(false)
    expect((await store.get('key'))?.meta.id).toBe('touch 19')
  })
})
