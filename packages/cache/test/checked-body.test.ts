import { type Body, createRequest, type ProxyRequest, readAll, WholeBody } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { type CacheEntry, type CacheMeta, type CacheWriter, cache, type GetOptions, MemoryStore, tiered } from '../src/index.ts'
import { headers, PushSource, settle, WatchedStore } from './support.ts'

/** Five bytes are what the entry says that it has. */
const LENGTH = 5

const request = (): ProxyRequest => createRequest({ scheme: 'http', authority: 'a', target: '/x', headers: headers() })

function stream(text: string, length?: number): PushSource {
  const source = new PushSource(length)
  setImmediate(() => {
    source.push(text)
    source.end()
  })
  return source
}

/** A store whose entry gives what `open` makes. */
class LyingStore extends WatchedStore {
  give: () => Body = () => null
  lastKey = ''

  override async get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    const entry = await super.get(key, want)
    return entry && { version: entry.version, meta: entry.meta, discard: () => entry.discard(), open: async () => this.give() }
  }

  override put(key: string, meta: CacheMeta): CacheWriter {
    this.lastKey = key
    return super.put(key, meta)
  }
}

const lies: [string, boolean, () => Body][] = [
  ['nothing', true, () => null],
  ['too few bytes', true, () => Buffer.from('abc')],
  ['too many bytes', true, () => Buffer.from('abcdefgh')],
  ['a text that is too short', true, () => new WholeBody('abc')],
  ['a stream that says so', true, () => stream('abc', 3)],
  ['a stream that ends early', false, () => stream('abc')],
  ['a stream that goes on', false, () => stream('abcdefgh')]
]

// A client got three bytes where five were announced, and waited for the others until the next answer on its connection, or took the next answer's for them.
describe.each(['alone', 'far', 'near'])('a store gives what is not as long as it said (%s)', (place) => {
  test.each(lies)('%s', async (_, isKnownAtOnce, open) => {
    const liar = new LyingStore()
    const memory = new MemoryStore()
    const [lying, honest] = [
      { name: 'liar', store: liar },
      { name: 'memory', store: memory }
    ]
    const store = place === 'alone' ? liar : tiered(place === 'far' ? [honest, lying] : [lying, honest])
    let asked = 0
    const handler = cache({ store })(async () => {
      asked++
      return { status: 200, headers: headers({ 'cache-control': 'max-age=60' }), body: Buffer.from('whole') }
    })
    await readAll((await handler(request())).body, 100)
    await settle()
    const key = liar.lastKey
    if (place === 'far') await memory.delete(key)
    liar.give = open
    const answer = await handler(request())
    if (isKnownAtOnce) {
      expect((await readAll(answer.body, 100)).toString()).toBe('whole')
      expect(asked).toBe(2)
    } else {
      await expect(readAll(answer.body, 100)).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
      await settle()
      expect(await liar.inner.get(key)).toBeUndefined()
      if (place === 'far') expect(await memory.get(key)).toBeUndefined()
    }
    await store.close()
  })
})

test('what is as long as it should be is handed on, also in part', async () => {
  const liar = new LyingStore()
  const writer = liar.put('k', sampleMeta())
  writer.write(Buffer.from('01234'))
  await writer.commit()
  const store = tiered([{ name: 'liar', store: liar }])
  for (const open of [() => stream('01234'), () => stream('01234', LENGTH), () => Buffer.from('01234')]) {
    liar.give = open
    expect((await readAll((await (await store.get('k'))?.open()) ?? null, 100)).toString()).toBe('01234')
  }
  liar.give = () => stream('12')
  expect((await readAll((await (await store.get('k'))?.open({ start: 1, end: 2 })) ?? null, 100)).toString()).toBe('12')
  liar.give = () => stream('34')
  expect((await readAll((await (await store.get('k'))?.open({ start: 3, end: 99 })) ?? null, 100)).toString()).toBe('34')
})

// The exception went into the origin of the bytes, and the client heard nothing more.
test('a store that gives too little and throws when that is to be removed: the client is cut all the same', async () => {
  const liar = new LyingStore()
  const handler = cache({ store: liar })(async () => ({ status: 200, headers: headers({ 'cache-control': 'max-age=60' }), body: Buffer.from('whole') }))
  await readAll((await handler(request())).body, 100)
  await settle()
  liar.give = () => stream('abc')
  liar.delete = () => {
    throw new Error('against the contract')
  }
  await expect(readAll((await handler(request())).body, 100)).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
  await liar.close()
})
