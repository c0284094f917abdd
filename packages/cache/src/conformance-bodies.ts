import assert from 'node:assert/strict'
import { readAll, toSource } from '@proxy/pipeline'
import { bodyOf, type Cases, digest, freshKey, MAX, mustGet, readSlowly, sampleBytes, sampleMeta } from './conformance-tools.ts'

/** Bodies: whole, in parts, by slow and by many readers, while they are written. */
export function bodyCases({ check, put, settled }: Cases): void {
  for (const size of [0, 1, 4095, 16 * 1024, 16 * 1024 + 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 300_007]) {
    check(`a body of ${size} bytes comes back whole, its length declared or not`, async (store) => {
      const bytes = sampleBytes(size)
      for (const meta of [sampleMeta(), sampleMeta({ length: size })]) {
        const key = freshKey()
        await put(store, key, bytes, meta, 7919)
        const entry = await mustGet(store, key)
        assert.equal(entry.meta.length, size)
        assert.equal(digest(await readAll(await entry.open(), MAX)), digest(bytes))
      }
    })
  }

  check('ranges are read exactly', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(200_000)
    await put(store, key, bytes)
    const edges = [0, 1, 65_535, 65_536, 65_537, 131_071, 131_072, 199_998, 199_999]
    for (const start of edges) {
      for (const end of [...edges, 250_000]) {
        if (end < start) continue
        const range = { start, end }
        const entry = await store.get(key, { body: range })
        assert.ok(entry)
        const body = await entry.open(range)
        assert.equal(digest(await readAll(body, MAX)), digest(bytes.subarray(start, end + 1)), `bytes ${start}-${end}`)
      }
    }
  })

  check('a range of a small body', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('0123456789'))
    const entry = await mustGet(store, key)
    assert.equal((await readAll(await entry.open({ start: 3, end: 5 }), MAX)).toString(), '345')
  })

  check('a range that starts beyond the end is refused', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('0123456789'))
    await assert.rejects((await mustGet(store, key)).open({ start: 10, end: 12 }), RangeError)
  })

  check('the hint of get does not bind open', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(100_000)
    await put(store, key, bytes)
    for (const body of ['none', 'all', { start: 5, end: 9 }] as const) {
      const entry = await store.get(key, { body })
      assert.ok(entry)
      assert.equal(digest(await readAll(await entry.open(), MAX)), digest(bytes))
      const again = await store.get(key, { body })
      assert.ok(again)
      assert.equal(digest(await readAll(await again.open({ start: 70_000, end: 80_000 }), MAX)), digest(bytes.subarray(70_000, 80_001)))
    }
  })

  check('a slow reader gets the body piece by piece', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(1_500_000)
    await put(store, key, bytes)
    const { bytes: read, largestBurst } = await readSlowly(await (await mustGet(store, key)).open())
    assert.equal(digest(read), digest(bytes))
    assert.ok(largestBurst <= 1_048_576, `${largestBurst} bytes came without being asked for`)
  })

  check('a reader may leave in the middle, and a body may be discarded unread', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(900_000)
    await put(store, key, bytes)
    const flow = toSource(await (await mustGet(store, key)).open()).start({ data: () => false, end() {}, error() {} })
    flow.abort()
    flow.abort()
    flow.resume()
    toSource(await (await mustGet(store, key)).open()).discard()
    ;(await mustGet(store, key)).discard()
    assert.equal(digest(await bodyOf(store, key)), digest(bytes))
  })

  check('many readers of one entry at once', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(250_000)
    await put(store, key, bytes)
    const read = await Promise.all(Array.from({ length: 8 }, () => bodyOf(store, key)))
    for (const one of read) assert.equal(digest(one), digest(bytes))
  })

  check('where a write can be read while it goes on, the reader follows it', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(400_000)
    const writer = store.put(key, sampleMeta())
    writer.write(bytes.subarray(0, 100_000))
    const followed = writer.readFrom === undefined ? undefined : readAll(writer.readFrom(50_000), MAX)
    for (let at = 100_000; at < bytes.length; at += 33_333) if (!writer.write(bytes.subarray(at, at + 33_333))) await writer.drained()
    assert.equal(await writer.commit(), true)
    if (followed !== undefined) assert.equal(digest(await followed), digest(bytes.subarray(50_000)))
    const broken = store.put(freshKey(), sampleMeta())
    broken.write(bytes.subarray(0, 10))
    const cut = broken.readFrom === undefined ? undefined : readAll(broken.readFrom(0), MAX)
    broken.abort()
    if (cut !== undefined) await assert.rejects(cut)
  })

  check('a body in tiny and empty pieces', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(3000)
    const writer = store.put(key, sampleMeta())
    writer.write(Buffer.alloc(0))
    for (let at = 0; at < bytes.length; at++) if (!writer.write(bytes.subarray(at, at + 1))) await writer.drained()
    writer.write(Buffer.alloc(0))
    assert.equal(await writer.commit(), true)
    await settled(store)
    assert.equal(digest(await bodyOf(store, key)), digest(bytes))
  })

  check('a body in one large piece', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(1_000_000)
    await put(store, key, bytes, sampleMeta({ length: bytes.length }), bytes.length)
    assert.equal(digest(await bodyOf(store, key)), digest(bytes))
  })

  check('an empty body has no range', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.alloc(0))
    await assert.rejects((await mustGet(store, key)).open({ start: 0, end: 0 }), RangeError)
  })

  check('a reader through an overwrite gets its own bytes or an error', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(1_500_000, 1)
    await put(store, key, bytes)
    const reading = readSlowly(await (await mustGet(store, key)).open())
    await put(store, key, sampleBytes(1_500_000, 2))
    let read: Buffer | undefined
    try {
      read = (await reading).bytes
    } catch (error) {
      assert.ok(error instanceof Error)
    }
    if (read !== undefined) assert.equal(digest(read), digest(bytes))
  })
}
