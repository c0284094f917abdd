import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { type Body, type BodySink, createHeaders, type Flow, readAll, toSource } from '@proxy/pipeline'
import type { CacheEntry, CacheMeta, CacheStore } from './store.ts'

export interface StoreConformanceOptions {
  /** Registers one case: vitest's or node:test's `test`. */
  readonly test: (name: string, body: () => Promise<void>) => void
  /** A store that is empty, or whose keys nobody else uses. Called once per case; the suite closes it. */
  readonly create: () => CacheStore | Promise<CacheStore>
  /** A body size that the store made by `create` refuses, where it has such a limit. Bytes. */
  readonly tooLargeBytes?: number
  /** Resolves when what was committed can be read: for stores whose `commit` resolves before. Default: at once. */
  readonly settled?: (store: CacheStore) => Promise<void>
}

const MAX = 64 * 1024 * 1024
let keys = 0
const freshKey = (): string => `conformance|https://example.org/${process.pid}/${Date.now().toString(36)}/${++keys}?q=ä&x=%20`

/** A record as the cache makes it; `changes` replaces parts. */
export function sampleMeta(changes: Partial<CacheMeta> = {}): CacheMeta {
  const headers = createHeaders()
  headers['content-type'] = 'image/png'
  headers.etag = '"v1"'
  headers['set-cookie'] = ['a=1', 'b=2']
  headers['x-latin1'] = 'caf\u00e9'
  const now = Date.now()
  return {
    v: 1,
    url: 'https://example.org/a.png',
    namespace: 'default',
    status: 200,
    headers,
    requestTime: now - 20,
    responseTime: now,
    initialAgeMs: 1500,
    keepUntil: now + 3_600_000,
    tags: ['album-7', 'all'],
    ...changes
  }
}

/** Bytes that differ at every offset and between seeds. */
export function sampleBytes(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = (seed * 2654435761) >>> 0
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

async function write(store: CacheStore, key: string, bytes: Buffer, meta: CacheMeta = sampleMeta(), chunkBytes = 50_000): Promise<boolean> {
  const writer = store.put(key, meta)
  for (let at = 0; at < bytes.length; at += chunkBytes) if (!writer.write(bytes.subarray(at, at + chunkBytes))) await writer.drained()
  return writer.commit()
}

async function mustGet(store: CacheStore, key: string): Promise<CacheEntry> {
  const entry = await store.get(key)
  assert.ok(entry, 'the entry is there')
  return entry
}

async function bodyOf(store: CacheStore, key: string): Promise<Buffer> {
  return readAll(await (await mustGet(store, key)).open(), MAX)
}

/** Reads one chunk at a time, pausing after each: what a slow client does. */
function readSlowly(body: Body): Promise<{ bytes: Buffer; largestBurst: number }> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = []
    let burst = 0
    let largestBurst = 0
    let flow: Flow | undefined
    const sink: BodySink = {
      data(chunk) {
        chunks.push(chunk)
        burst += chunk.byteLength
        largestBurst = Math.max(largestBurst, burst)
        setImmediate(() => {
          burst = 0
          flow?.resume()
        })
        return false
      },
      end: () => resolve({ bytes: Buffer.concat(chunks), largestBurst }),
      error: reject
    }
    flow = toSource(body).start(sink)
  })
}

/** The cases every `CacheStore` passes. Registers them with `options.test`. */
export function storeConformance(options: StoreConformanceOptions): void {
  const settled = options.settled ?? (async () => {})
  const check = (name: string, run: (store: CacheStore) => Promise<void>): void => {
    options.test(name, async () => {
      const store = await options.create()
      try {
        await run(store)
      } finally {
        await store.close()
      }
    })
  }
  const put = async (store: CacheStore, key: string, bytes: Buffer, meta?: CacheMeta, chunkBytes?: number): Promise<void> => {
    assert.equal(await write(store, key, bytes, meta, chunkBytes), true, 'commit resolves to true')
    await settled(store)
  }

  check('an unknown key is a miss', async (store) => {
    assert.equal(await store.get(freshKey()), undefined)
    assert.equal(await store.delete(freshKey()), false)
    assert.equal(await store.touch(freshKey(), 'none', sampleMeta()), false)
  })

  check('metadata comes back as it was put', async (store) => {
    const key = freshKey()
    const headers = createHeaders()
    headers['content-type'] = 'text/plain'
    headers['set-cookie'] = ['a=1; Path=/', 'b=2']
    for (const name of ['__proto__', 'constructor']) headers[name] = 'a field like any other'
    headers['x-empty'] = ''
    headers['x-latin1'] = '\u00e9\u00ff'
    const meta = sampleMeta({ headers, status: 203, tags: ['one', 'two words'], namespace: 'img', url: 'https://example.org/%C3%A4?b=1&a=2' })
    await put(store, key, Buffer.from('hello'), meta)
    const entry = await mustGet(store, key)
    assert.deepEqual({ ...entry.meta, headers: Object.entries(entry.meta.headers) }, { ...meta, headers: Object.entries(headers), length: 5 })
    assert.equal(typeof entry.version, 'string')
    assert.notEqual(entry.version, '')
    entry.discard()
  })

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

  check('nothing is visible before commit', async (store) => {
    const key = freshKey()
    const writer = store.put(key, sampleMeta())
    writer.write(Buffer.from('half'))
    await writer.drained()
    assert.equal(await store.get(key), undefined)
    writer.abort()
  })

  check('an aborted write leaves nothing, and what was there before stays', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('first'))
    const writer = store.put(key, sampleMeta())
    writer.write(Buffer.from('second'))
    writer.abort()
    assert.equal(await writer.commit(), false)
    assert.equal(writer.write(Buffer.from('more')), true)
    await writer.drained()
    assert.equal((await bodyOf(store, key)).toString(), 'first')
  })

  check('a body that is not as long as declared is not committed', async (store) => {
    for (const text of ['four', 'sixteen letters!']) {
      const key = freshKey()
      assert.equal(await write(store, key, Buffer.from(text), sampleMeta({ length: 5 })), false)
      assert.equal(await store.get(key), undefined)
    }
  })

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

  check('a later put replaces an earlier one under a new version', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('first'))
    const first = await mustGet(store, key)
    first.discard()
    await put(store, key, Buffer.from('second, longer'), sampleMeta({ status: 404 }))
    const second = await mustGet(store, key)
    assert.notEqual(second.version, first.version)
    assert.equal(second.meta.status, 404)
    assert.equal((await readAll(await second.open(), MAX)).toString(), 'second, longer')
  })

  for (const [what, change] of [
    ['overwrite', async (store: CacheStore, key: string) => void (await write(store, key, sampleBytes(150_000, 2)))],
    ['shorter overwrite', async (store: CacheStore, key: string) => void (await write(store, key, sampleBytes(10, 2)))],
    ['delete', async (store: CacheStore, key: string) => void (await store.delete(key))]
  ] as const) {
    check(`an entry obtained before an ${what} gives its own bytes or an error`, async (store) => {
      for (const hint of ['none', 'all'] as const) {
        const key = freshKey()
        const bytes = sampleBytes(150_000, 1)
        await put(store, key, bytes)
        const entry = await store.get(key, { body: hint })
        assert.ok(entry)
        await change(store, key)
        await settled(store)
        let read: Buffer | undefined
        try {
          read = await readAll(await entry.open(), MAX)
        } catch (error) {
          assert.ok(error instanceof Error)
        }
        if (read !== undefined) assert.equal(digest(read), digest(bytes))
      }
    })
  }

  check('touch replaces metadata and leaves version and body', async (store) => {
    const key = freshKey()
    const bytes = sampleBytes(70_000)
    await put(store, key, bytes)
    const before = await mustGet(store, key)
    before.discard()
    const headers = createHeaders()
    headers.etag = '"v1"'
    headers['x-new'] = 'yes'
    const meta = sampleMeta({ headers, responseTime: 1_800_000_000_000, requestTime: 1_799_999_999_000, initialAgeMs: 0, keepUntil: Date.now() + 7_200_000 })
    assert.equal(await store.touch(key, before.version, meta), true)
    await settled(store)
    const after = await mustGet(store, key)
    assert.equal(after.version, before.version)
    assert.deepEqual(Object.entries(after.meta.headers), Object.entries(headers))
    assert.equal(after.meta.responseTime, 1_800_000_000_000)
    assert.equal(after.meta.length, 70_000)
    assert.equal(digest(await readAll(await after.open(), MAX)), digest(bytes))
  })

  check('touch and delete of another version do nothing', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('first'))
    const first = await mustGet(store, key)
    first.discard()
    await put(store, key, Buffer.from('second'))
    assert.equal(await store.touch(key, first.version, sampleMeta({ status: 500 })), false)
    assert.equal(await store.delete(key, first.version), false)
    const entry = await mustGet(store, key)
    assert.equal(entry.meta.status, 200)
    assert.equal(await store.delete(key, entry.version), true)
    entry.discard()
    await settled(store)
    assert.equal(await store.get(key), undefined)
  })

  check('delete removes, once', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('gone'))
    assert.equal(await store.delete(key), true)
    await settled(store)
    assert.equal(await store.get(key), undefined)
    assert.equal(await store.delete(key), false)
  })

  check('a base record of variants comes back', async (store) => {
    const key = freshKey()
    const vary = { fields: ['accept', 'accept-encoding'], generation: 'g-17' }
    await put(store, key, Buffer.alloc(0), sampleMeta({ vary }))
    const entry = await mustGet(store, key)
    assert.deepEqual(entry.meta.vary, vary)
    entry.discard()
  })

  check('writers of one key at the same time leave one whole body', async (store) => {
    const key = freshKey()
    const bodies = [1, 2, 3, 4].map((seed) => sampleBytes(90_000 + seed, seed))
    const results = await Promise.all(bodies.map((bytes) => write(store, key, bytes, sampleMeta({ length: bytes.length }), 10_007)))
    assert.ok(results.includes(true))
    await settled(store)
    const stored = digest(await bodyOf(store, key))
    assert.ok(bodies.some((bytes) => digest(bytes) === stored))
  })

  check('keys are opaque: long, odd and similar ones do not meet', async (store) => {
    const base = freshKey()
    const odd = ['', '/', '/../x', '\\', ' ', '%00', ':', '*', '?', 'é', '\u{1f600}', 'A', 'a', `/${'long/'.repeat(600)}`].map((suffix) => base + suffix)
    for (const [i, key] of odd.entries()) await put(store, key, Buffer.from(`body ${i}`))
    for (const [i, key] of odd.entries()) assert.equal((await bodyOf(store, key)).toString(), `body ${i}`)
  })

  check('a record of an unknown format is a miss', async (store) => {
    const key = freshKey()
    await write(store, key, Buffer.from('from the future'), { ...sampleMeta(), v: 2 as unknown as 1 })
    await settled(store)
    assert.equal(await store.get(key), undefined)
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

  const { tooLargeBytes } = options
  if (tooLargeBytes !== undefined) {
    check('a body beyond the limit is refused, and the store goes on', async (store) => {
      for (const meta of [sampleMeta(), sampleMeta({ length: tooLargeBytes })]) {
        const key = freshKey()
        assert.equal(await write(store, key, Buffer.alloc(tooLargeBytes, 1), meta), false)
        assert.equal(await store.get(key), undefined)
      }
      const key = freshKey()
      await put(store, key, Buffer.from('small'))
      assert.equal((await bodyOf(store, key)).toString(), 'small')
    })
  }

  check('close can be called with nothing under way', async (store) => {
    await put(store, freshKey(), Buffer.from('x'))
  })
}
