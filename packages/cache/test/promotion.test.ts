import { type Body, type BodySource, readAll } from '@proxy/pipeline'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { sampleBytes, sampleMeta } from '../src/conformance.ts'
import { type CacheMeta, type CacheStore, MemoryStore, type Tier, tiered } from '../src/index.ts'
import { PushSource, settle, TestReader, WatchedStore } from './support.ts'

let near: WatchedStore
let far: WatchedStore
beforeEach(() => {
  near = new WatchedStore()
  far = new WatchedStore()
})

const both = (tier: Partial<Tier> = {}) =>
  tiered([
    { store: near, name: 'near', ...tier },
    { store: far, name: 'far' }
  ])

async function put(store: CacheStore, key: string, content: string | Uint8Array, changes: Partial<CacheMeta> = {}): Promise<void> {
  const writer = store.put(key, sampleMeta(changes))
  if (content.length > 0) writer.write(Buffer.from(content))
  expect(await writer.commit()).toBe(true)
}

async function read(store: CacheStore, key: string): Promise<string | undefined> {
  const entry = await store.get(key)
  return entry === undefined ? undefined : (await readAll(await entry.open(), 8 << 20)).toString('latin1')
}

/** The body that the far store gives for every entry. */
function giveBody(make: () => Body): void {
  const { get } = far
  far.get = async (key, want) => {
    const entry = await get.call(far, key, want)
    if (entry === undefined) return undefined
    return {
      ...entry,
      open: async (range) => {
        await entry.open(range)
        return make()
      }
    }
  }
}

describe('what is found far away and read whole', () => {
  test.each([
    ['small', 100],
    ['moderate', 300_000],
    ['empty', 0]
  ])('is copied to the nearer tier: %s', async (_, size) => {
    const bytes = sampleBytes(size)
    await put(far, 'k', bytes)
    const store = both()
    expect(await read(store, 'k')).toBe(Buffer.from(bytes).toString('latin1'))
    await settle()
    expect(await read(near, 'k')).toBe(Buffer.from(bytes).toString('latin1'))
    expect((await near.get('k'))?.meta.id).toBe((await far.get('k'))?.meta.id)
    await store.close()
    expect(store.tierStats()).toMatchObject([
      { name: 'near', hits: 0, misses: 1, errors: 0, promotions: 1, bytesServed: 0, bytesWritten: size },
      { name: 'far', hits: 1, misses: 0, errors: 0, promotions: 0, bytesServed: size, bytesWritten: 0 }
    ])
  })

  test('is copied while it streams, at its reader’s pace', async () => {
    await put(far, 'k', 'onetwo')
    const body = new PushSource(6)
    giveBody(() => body)
    const reader = new TestReader(((await (await both().get('k'))?.open()) ?? null) as BodySource, { slow: true })
    body.push('one')
    expect(await near.get('k')).toBeUndefined()
    reader.take()
    body.push('two')
    reader.hurry()
    body.end()
    await settle()
    expect([reader.state, reader.text, await read(near, 'k')]).toEqual(['ended', 'onetwo', 'onetwo'])
  })

  test('is copied for all nearer tiers, through a tier that failed meanwhile', async () => {
    const third = new WatchedStore()
    await put(third, 'k', 'text')
    const store = tiered([
      { store: near, name: 'near' },
      { store: far, name: 'far' },
      { store: third, name: 'third' }
    ])
    far.breakGet = () => new Error('down')
    expect(await read(store, 'k')).toBe('text')
    await settle()
    far.breakGet = undefined
    expect([await read(near, 'k'), await read(far, 'k')]).toEqual(['text', undefined])
    expect(store.tierStats().map(({ errors, promotions }) => [errors, promotions])).toEqual([
      [0, 1],
      [1, 0],
      [0, 0]
    ])
  })

  test('a base record is copied when it is found: it is never opened', async () => {
    await put(far, 'k', '', { vary: { fields: ['accept'], generation: 'g' }, length: 0 })
    const store = both()
    ;(await store.get('k', { body: 'none' }))?.discard()
    await settle()
    expect((await near.get('k'))?.meta.vary?.generation).toBe('g')
  })
})

// Forty clients who read one object from the disk were forty copies in memory, for as long as the slowest of them took, and pushed out all else.
describe('many readers of one entry', () => {
  const stalled = (stallMs: number) =>
    tiered(
      [
        { store: near, name: 'near' },
        { store: far, name: 'far' }
      ],
      { stallMs }
    )
  const open = async (store: CacheStore): Promise<BodySource> => ((await (await store.get('k'))?.open()) ?? null) as BodySource
  let copies: number
  beforeEach(async () => {
    copies = 0
    near.onPut = (writer) => {
      copies++
      return writer
    }
    await put(far, 'k', 'onetwo')
  })

  test('make one copy', async () => {
    const bodies: PushSource[] = []
    giveBody(() => {
      const body = new PushSource(6)
      bodies.push(body)
      return body
    })
    const store = both()
    const readers: TestReader[] = []
    for (let i = 0; i < 10; i++) readers.push(new TestReader(await open(store)))
    expect(copies).toBe(1)
    for (const body of bodies) {
      body.push('onetwo')
      body.end()
    }
    await settle()
    expect(readers.map(({ text }) => text)).toEqual(Array.from({ length: 10 }, () => 'onetwo'))
    expect([await read(near, 'k'), store.tierStats()[0]?.promotions]).toEqual(['onetwo', 1])
  })

  test.each(['leaves', 'pauses for too long'])('another one makes it when the first %s', async (how) => {
    let body = new PushSource(6)
    giveBody(() => body)
    const store = stalled(how === 'leaves' ? 60_000 : 10)
    const slow = new TestReader(await open(store), { slow: true })
    body.push('one')
    const first = body
    if (how === 'leaves') slow.leave()
    body = new PushSource(6)
    giveBody(() => body)
    await vi.waitFor(async () => {
      body = new PushSource(6)
      ;(await open(store)).discard()
      expect(copies).toBe(2)
    })
    body = new PushSource(6)
    const fast = new TestReader(await open(store))
    expect(copies).toBe(3)
    body.push('onetwo')
    body.end()
    await settle()
    expect([fast.text, await read(near, 'k')]).toEqual(['onetwo', 'onetwo'])
    if (how === 'leaves') return
    // The slow one gets its own all the same.
    slow.hurry()
    first.push('two')
    first.end()
    await settle()
    expect([slow.state, slow.text]).toEqual(['ended', 'onetwo'])
  })

  test('one that is slow but steady makes it, within its time', async () => {
    const body = new PushSource(6)
    giveBody(() => body)
    const store = stalled(60_000)
    const reader = new TestReader(await open(store), { slow: true })
    for (const letter of 'onetwo') {
      body.push(letter)
      reader.take()
    }
    reader.hurry()
    body.end()
    await settle()
    expect(await read(near, 'k')).toBe('onetwo')
  })
})

describe('nothing is copied', () => {
  const stays = async (): Promise<void> => {
    await settle()
    expect(await near.get('k')).toBeUndefined()
    expect(near.leaked).toBe(0)
  }

  test('of a part, of what is not read, of what one looks at only', async () => {
    await put(far, 'k', 'text')
    const store = both()
    await readAll((await (await store.get('k'))?.open({ start: 0, end: 1 })) as Body, 100)
    ;(await store.get('k'))?.discard()
    ;(await store.get('k', { body: 'none' }))?.discard()
    await stays()
  })

  test('to a tier that does not admit it, or does not want it', async () => {
    await put(far, 'k', 'text')
    await read(both({ admit: ({ status }) => status >= 400 }), 'k')
    await read(both({ promote: false }), 'k')
    await stays()
  })

  test('that breaks off, or that its reader leaves', async () => {
    await put(far, 'k', 'onetwo')
    for (const end of ['fail', 'leave', 'discard'] as const) {
      const body = new PushSource(6)
      giveBody(() => body)
      const opened = (await (await both().get('k'))?.open()) as BodySource
      if (end === 'discard') opened.discard()
      else {
        const reader = new TestReader(opened)
        body.push('one')
        if (end === 'fail') body.fail()
        else reader.leave()
      }
      await stays()
    }
  })

  // It would bring back what has just been removed, or hide what has just been put, for as long as it is fresh.
  test('that was removed or replaced while it was read', async () => {
    for (const change of ['delete', 'replace'] as const) {
      await put(far, 'k', 'onetwo')
      const store = both()
      const body = new PushSource(6)
      giveBody(() => body)
      const reader = new TestReader(((await (await store.get('k'))?.open()) ?? null) as BodySource)
      body.push('one')
      if (change === 'delete') await store.delete('k')
      else await put(store, 'k', 'newer!')
      body.push('two')
      body.end()
      await settle(20)
      expect(reader.text).toBe('onetwo')
      expect(await read(near, 'k')).toBe(change === 'delete' ? undefined : 'newer!')
    }
  })

  // A copy that was becoming visible when its key was removed or written anew landed after that, and was what was found from then on.
  test.each(['delete', 'put'] as const)('that lands while its key changes: %s', async (change) => {
    await put(far, 'k', 'old')
    const landing = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    let copies = 0
    near.onPut = (writer) => {
      if (copies++ > 0) return writer
      const commit = async (): Promise<boolean> => {
        begun.resolve()
        await landing.promise
        return writer.commit()
      }
      return { write: (chunk) => writer.write(chunk), drained: () => writer.drained(), commit, abort: () => writer.abort() }
    }
    const store = both()
    expect(await read(store, 'k')).toBe('old')
    await begun.promise
    const changed = change === 'delete' ? store.delete('k') : put(store, 'k', 'new')
    await settle()
    landing.resolve()
    await changed
    expect([await read(store, 'k'), await read(near, 'k')]).toEqual(change === 'delete' ? [undefined, undefined] : ['new', 'new'])
  })

  test('that is found while its key changes', async () => {
    await put(far, 'k', 'old')
    const removing = Promise.withResolvers<void>()
    const remove = far.delete.bind(far)
    far.delete = async (key) => {
      await removing.promise
      return remove(key)
    }
    const store = both()
    const removed = store.delete('k')
    expect(await read(store, 'k')).toBe('old')
    await settle()
    removing.resolve()
    await removed
    expect([await read(store, 'k'), store.tierStats()[0]?.promotions]).toEqual([undefined, 0])
  })

  test('to a tier that does not keep up: the reader is not slowed', async () => {
    await put(far, 'k', 'onetwo')
    const drained = Promise.withResolvers<void>()
    near.onPut = (writer) => ({ write: () => false, drained: () => drained.promise, commit: () => writer.commit(), abort: () => writer.abort() })
    const body = new PushSource(6)
    giveBody(() => body)
    const reader = new TestReader(((await (await both().get('k'))?.open()) ?? null) as BodySource)
    expect([body.push('one'), body.push('two')]).toEqual([true, true])
    body.end()
    expect(reader.text).toBe('onetwo')
    await stays()
  })

  test('to a tier that refuses it from the start', async () => {
    const small = new MemoryStore({ maxBytes: 5000, maxEntryBytes: 1000 })
    await put(far, 'k', sampleBytes(4000), { length: 4000 })
    const store = tiered([
      { store: small, name: 'small' },
      { store: far, name: 'far' }
    ])
    expect((await read(store, 'k'))?.length).toBe(4000)
    expect(store.tierStats()[0]?.promotions).toBe(0)
  })
})
