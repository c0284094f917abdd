import assert from 'node:assert/strict'
import { createHeaders, readAll } from '@proxy/pipeline'
import { bodyOf, type Cases, digest, freshKey, MAX, mustGet, sampleBytes, sampleMeta, write } from './conformance-tools.ts'
import type { CacheStore } from './store.ts'

/** Entries: visibility, versions, metadata, keys. */
export function entryCases({ check, put, settled }: Cases): void {
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
    const meta = sampleMeta({ id: 'w-17', headers, status: 203, tags: ['one', 'two words'], namespace: 'img', url: 'https://example.org/%C3%A4?b=1&a=2' })
    await put(store, key, Buffer.from('hello'), meta)
    const entry = await mustGet(store, key)
    assert.deepEqual({ ...entry.meta, headers: Object.entries(entry.meta.headers) }, { ...meta, headers: Object.entries(headers), length: 5 })
    assert.equal(typeof entry.version, 'string')
    assert.notEqual(entry.version, '')
    entry.discard()
  })

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

  check('abort after commit changes nothing', async (store) => {
    const key = freshKey()
    const writer = store.put(key, sampleMeta())
    writer.write(Buffer.from('kept'))
    assert.equal(await writer.commit(), true)
    writer.abort()
    await settled(store)
    assert.equal((await bodyOf(store, key)).toString(), 'kept')
  })

  check('a writer that says whether it has failed says so truly', async (store) => {
    const good = store.put(freshKey(), sampleMeta())
    good.write(Buffer.from('x'))
    assert.notEqual(good.failed, true)
    assert.equal(await good.commit(), true)
    const aborted = store.put(freshKey(), sampleMeta())
    aborted.abort()
    assert.notEqual(aborted.failed, false)
  })

  check('touch does not change the length, and an entry obtained before it still opens', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('hello'))
    const before = await mustGet(store, key)
    assert.equal(await store.touch(key, before.version, sampleMeta({ length: 99, status: 203 })), true)
    await settled(store)
    const after = await mustGet(store, key)
    assert.equal(after.meta.length, 5)
    assert.equal(after.meta.status, 203)
    assert.equal((await readAll(await after.open(), MAX)).toString(), 'hello')
    assert.equal(before.meta.status, 200)
    assert.equal((await readAll(await before.open(), MAX)).toString(), 'hello')
  })

  check('a get that is given up settles', async (store) => {
    const key = freshKey()
    await put(store, key, Buffer.from('hello'))
    const controller = new AbortController()
    const givenUp = store.get(key, { signal: controller.signal })
    controller.abort()
    for (const result of await Promise.allSettled([givenUp, store.get(key, { signal: AbortSignal.abort() })])) {
      if (result.status === 'fulfilled') result.value?.discard()
    }
    assert.equal((await bodyOf(store, key)).toString(), 'hello')
  })
}
