import { readAll } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { sampleBytes, sampleMeta, storeConformance } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import type { CacheMeta, CacheStore, CacheWriter } from '../src/store.ts'
import { tiered } from '../src/tiers.ts'
import { digest, settle, WatchedStore } from './support.ts'

describe('conformance of two tiers', () => {
  const memory = (): MemoryStore => new MemoryStore({ maxBytes: 16 << 20, maxEntryBytes: 2 << 20 })
  storeConformance({
    test,
    create: () =>
      tiered([
        { store: memory(), name: 'first' },
        { store: memory(), name: 'second' }
      ]),
    tooLargeBytes: (2 << 20) + 1
  })
})

interface Setup {
  first: WatchedStore
  second: WatchedStore
  store: CacheStore
  errors: [string, unknown][]
}

function setup(options: { admitFirst?: (meta: CacheMeta) => boolean; admitSecond?: (meta: CacheMeta) => boolean; stallMs?: number; firstBytes?: number } = {}): Setup {
  const first = new WatchedStore(new MemoryStore({ maxBytes: options.firstBytes ?? 1 << 20, maxEntryBytes: options.firstBytes ?? 1 << 20 }))
  const second = new WatchedStore()
  const errors: [string, unknown][] = []
  const store = tiered(
    [
      { store: first, name: 'first', ...(options.admitFirst && { admit: options.admitFirst }) },
      { store: second, name: 'second', ...(options.admitSecond && { admit: options.admitSecond }) }
    ],
    { onTierError: (tier, error) => errors.push([tier, error]), ...(options.stallMs !== undefined && { stallMs: options.stallMs }) }
  )
  return { first, second, store, errors }
}

async function put(store: CacheStore, key: string, text: string, changes: Partial<CacheMeta> = {}): Promise<boolean> {
  const writer = store.put(key, sampleMeta(changes))
  writer.write(Buffer.from(text))
  return writer.commit()
}

async function read(store: CacheStore, key: string): Promise<string | undefined> {
  const entry = await store.get(key)
  return entry === undefined ? undefined : (await readAll(await entry.open(), 8 << 20)).toString()
}

const negative = (meta: CacheMeta): boolean => meta.status >= 400

test('the nearest tier that has it answers', async () => {
  const { first, second, store } = setup()
  await put(first, 'both', 'from the first')
  await put(second, 'both', 'from the second')
  await put(second, 'far', 'from afar')
  expect(await read(store, 'both')).toBe('from the first')
  expect(await read(store, 'far')).toBe('from afar')
  expect(await read(store, 'none')).toBeUndefined()
})

test('a write goes to every tier, a delete too', async () => {
  const { first, second, store } = setup()
  expect(await put(store, 'k', 'text')).toBe(true)
  expect([await read(first, 'k'), await read(second, 'k')]).toEqual(['text', 'text'])
  expect(await store.delete('k')).toBe(true)
  expect([await read(first, 'k'), await read(second, 'k')]).toEqual([undefined, undefined])
  expect(await store.delete('k')).toBe(false)
})

test('an error in one tier is a miss in that one', async () => {
  const { first, second, store, errors } = setup()
  await put(second, 'k', 'text')
  const broken = new Error('down')
  first.breakGet = () => broken
  expect(await read(store, 'k')).toBe('text')
  expect(errors).toEqual([['first', broken]])
  second.breakGet = () => broken
  expect(await read(store, 'k')).toBeUndefined()
})

describe('admission', () => {
  test('a tier keeps what it admits', async () => {
    const { first, second, store } = setup({ admitFirst: negative })
    await put(store, 'good', 'yes')
    await put(store, 'bad', 'no', { status: 404 })
    expect([await read(first, 'good'), await read(second, 'good')]).toEqual([undefined, 'yes'])
    expect([await read(first, 'bad'), await read(second, 'bad')]).toEqual(['no', 'no'])
  })

  test('a later success clears a negative entry kept elsewhere, before it says that it is stored', async () => {
    const { first, store } = setup({ admitFirst: negative, admitSecond: (meta) => !negative(meta) })
    await put(store, 'k', 'no', { status: 404 })
    expect((await store.get('k'))?.meta.status).toBe(404)
    const slow = Promise.withResolvers<void>()
    const remove = first.delete.bind(first)
    first.delete = async (key, version) => {
      await slow.promise
      return remove(key, version)
    }
    const commit = put(store, 'k', 'yes')
    slow.resolve()
    expect(await commit).toBe(true)
    expect(await read(store, 'k')).toBe('yes')
    expect(await read(first, 'k')).toBeUndefined()
  })

  test('and the other way round', async () => {
    const { second, store } = setup({ admitFirst: negative, admitSecond: (meta) => !negative(meta) })
    await put(store, 'k', 'yes')
    await put(store, 'k', 'no', { status: 404 })
    expect((await store.get('k'))?.meta.status).toBe(404)
    expect(await read(second, 'k')).toBeUndefined()
  })

  test('what no tier admits is not stored, and changes nothing', async () => {
    const { store } = setup({ admitFirst: negative, admitSecond: negative })
    await put(store, 'k', 'no', { status: 404 })
    const writer = store.put('k', sampleMeta())
    expect(writer.failed).toBe(true)
    expect(await writer.commit()).toBe(false)
    expect(await read(store, 'k')).toBe('no')
  })

  test('a clearing that fails is told, and the entry is stored all the same', async () => {
    const { first, store, errors } = setup({ admitFirst: negative })
    const broken = new Error('down')
    first.breakDelete = () => broken
    expect(await put(store, 'k', 'yes')).toBe(true)
    expect(errors).toEqual([['first', broken]])
  })
})

describe('writes', () => {
  // The tier in front kept, and went on serving, what it had before, when the new body was too large for it.
  test('a tier that could not take it forgets what it had', async () => {
    const { first, store } = setup({ firstBytes: 10_000 })
    await put(store, 'k', 'old')
    const large = sampleBytes(50_000).toString('latin1')
    expect(await put(store, 'k', large)).toBe(true)
    expect(await read(first, 'k')).toBeUndefined()
    expect((await store.get('k'))?.meta.length).toBe(Buffer.from(large).length)
  })

  test('when no tier could take it, all keep what they had', async () => {
    const { first, second, store } = setup({ firstBytes: 10_000 })
    await put(store, 'k', 'old')
    const writer = store.put('k', sampleMeta({ length: 5 }))
    writer.write(Buffer.from('four'))
    expect(await writer.commit()).toBe(false)
    expect([await read(first, 'k'), await read(second, 'k')]).toEqual(['old', 'old'])
  })

  test('a follower reads from a tier that is still writing', async () => {
    const { store } = setup({ firstBytes: 10_000 })
    const bytes = sampleBytes(50_000)
    const writer = store.put('k', sampleMeta())
    writer.write(bytes.subarray(0, 20_000))
    expect(writer.failed).toBe(false)
    const followed = readAll(writer.readFrom?.(100) ?? null, 1 << 20)
    writer.write(bytes.subarray(20_000))
    await writer.commit()
    expect(digest(await followed)).toBe(digest(bytes.subarray(100)))
  })

  test('abort reaches all', async () => {
    const { first, second, store } = setup()
    const writer = store.put('k', sampleMeta())
    writer.write(Buffer.from('text'))
    writer.abort()
    expect(writer.failed).toBe(true)
    expect(await writer.commit()).toBe(false)
    expect([await read(first, 'k'), await read(second, 'k')]).toEqual([undefined, undefined])
  })

  test('all that are written to set the pace; one that stalls is left out', async () => {
    const { first, second, store } = setup({ stallMs: 20 })
    await put(store, 'k', 'old')
    const never = new Promise<void>(() => {})
    let aborted = 0
    second.onPut = (inner): CacheWriter => ({
      write: (chunk) => {
        inner.write(chunk)
        return false
      },
      drained: () => never,
      commit: () => inner.commit(),
      abort: () => {
        aborted++
        inner.abort()
      }
    })
    const writer = store.put('k', sampleMeta())
    expect(writer.write(Buffer.from('new'))).toBe(false)
    await writer.drained()
    expect(aborted).toBe(1)
    expect(await writer.commit()).toBe(true)
    expect([await read(first, 'k'), await read(second, 'k')]).toEqual(['new', undefined])
  })

  // A timer takes no more than 2^31-1 ms, and fires at once beyond that.
  test('stallMs may be Infinity: a tier is waited for then', async () => {
    const { second, store } = setup({ stallMs: Number.POSITIVE_INFINITY })
    second.onPut = (inner): CacheWriter => ({
      write: (chunk) => inner.write(chunk) && false,
      drained: () => new Promise((resolve) => setTimeout(resolve, 20)),
      commit: () => inner.commit(),
      abort: () => inner.abort()
    })
    const writer = store.put('k', sampleMeta())
    writer.write(Buffer.from('new'))
    await writer.drained()
    expect([await writer.commit(), await read(second, 'k')]).toEqual([true, 'new'])
  })

  test.each(['abort', 'failed', 'readFrom'])('a tier whose writer throws is left out, and the others go on: %s', async (operation) => {
    const { first, store, errors } = setup()
    const fail = (): never => {
      throw new Error(`${operation} threw`)
    }
    first.onPut = (inner): CacheWriter => ({
      write: (chunk) => inner.write(chunk),
      drained: () => inner.drained(),
      commit: () => inner.commit(),
      abort: () => (operation === 'abort' ? fail() : inner.abort()),
      readFrom: (offset) => (operation === 'readFrom' ? fail() : (inner.readFrom?.(offset) ?? null)),
      get failed() {
        return operation === 'failed' ? fail() : inner.failed
      }
    })
    const writer = store.put('k', sampleMeta())
    writer.write(Buffer.from('text'))
    if (operation === 'abort') {
      writer.abort()
      expect([writer.failed, await writer.commit()]).toEqual([true, false])
    } else {
      const followed = readAll(writer.readFrom?.(1) ?? null, 100)
      expect(await writer.commit()).toBe(true)
      expect([(await followed).toString(), await read(store, 'k')]).toEqual(['ext', 'text'])
    }
    expect(errors.map(([tier]) => tier)).toEqual(operation === 'failed' ? [] : ['first'])
  })

  test('one that drains in time stays', async () => {
    const { second, store } = setup()
    second.onPut = (inner): CacheWriter => ({
      write: (chunk) => {
        inner.write(chunk)
        return false
      },
      drained: () => Promise.resolve(),
      commit: () => inner.commit(),
      abort: () => inner.abort()
    })
    const writer = store.put('k', sampleMeta())
    expect(writer.write(Buffer.from('new'))).toBe(false)
    await writer.drained()
    expect(await writer.commit()).toBe(true)
    expect(await read(second, 'k')).toBe('new')
  })
})

test('touch renews the version that was found, in the tier it came from', async () => {
  const { first, second, store } = setup()
  await put(first, 'k', 'one')
  await put(second, 'k', 'two')
  const entry = await store.get('k')
  expect(await store.touch('k', entry?.version ?? '', sampleMeta({ status: 203 }))).toBe(true)
  expect((await first.get('k'))?.meta.status).toBe(203)
  expect((await second.get('k'))?.meta.status).toBe(200)
  expect(await store.touch('k', 'other', sampleMeta())).toBe(false)
})

describe('what a 304 says', () => {
  // It was noted in the tier that answered alone: after a restart the other one gave out the freshness that the origin had taken back.
  test('reaches every tier that holds the same response, by its id', async () => {
    const { first, second, store } = setup()
    await put(store, 'k', 'text', { id: 'this', headers: { 'cache-control': 'max-age=3600' } })
    const entry = await store.get('k')
    const renewed = { ...(entry?.meta as CacheMeta), headers: { 'cache-control': 'max-age=5' } }
    expect(await store.touch('k', entry?.version ?? '', renewed)).toBe(true)
    for (const tier of [first, second]) expect((await tier.get('k'))?.meta.headers['cache-control']).toBe('max-age=5')
    expect([await read(first, 'k'), await read(second, 'k')]).toEqual(['text', 'text'])
  })

  test('does not reach another response, nor one that was renewed later', async () => {
    const { first, second, store } = setup()
    await put(first, 'k', 'one', { id: 'this' })
    const version = (await first.get('k'))?.version ?? ''
    await put(second, 'k', 'two', { id: 'other' })
    expect(await store.touch('k', version, sampleMeta({ id: 'this', status: 203 }))).toBe(true)
    expect((await second.get('k'))?.meta.status).toBe(200)
    const later = sampleMeta({ id: 'this' }).requestTime + 1
    await put(second, 'k', 'one', { id: 'this', requestTime: later })
    expect(await store.touch('k', version, sampleMeta({ id: 'this', status: 203 }))).toBe(true)
    expect((await second.get('k'))?.meta.status).toBe(200)
  })

  test.each(['get', 'touch'] as const)('a tier that cannot be told (%s fails) gives out nothing of it any more', async (operation) => {
    const { first, second, store } = setup()
    await put(store, 'k', 'text', { id: 'this' })
    const entry = await store.get('k')
    if (operation === 'get') second.breakGet = () => new Error('down')
    else second.breakTouch = () => new Error('down')
    expect(await store.touch('k', entry?.version ?? '', entry?.meta as CacheMeta)).toBe(true)
    second.breakGet = undefined
    second.breakTouch = undefined
    expect(await read(store, 'k')).toBe('text')
    await first.delete('k')
    expect(await read(store, 'k')).toBeUndefined()
  })

  // The copy had been found before, and brought what the origin had taken back to the tier that is asked first.
  test('is not undone by a copy to a nearer tier', async () => {
    const { first, second, store } = setup()
    await put(second, 'k', 'text', { id: 'this', headers: { 'cache-control': 'max-age=3600' } })
    const entry = await store.get('k')
    const before = entry?.meta as CacheMeta
    const renewed = { ...before, requestTime: before.requestTime + 1, headers: { 'cache-control': 'max-age=5' } }
    expect(await store.touch('k', entry?.version ?? '', renewed)).toBe(true)
    await readAll((await entry?.open()) ?? null, 100)
    await settle()
    expect(await first.get('k')).toBeUndefined()
    expect((await store.get('k'))?.meta.headers['cache-control']).toBe('max-age=5')
  })
})

test('touch goes on where one tier fails; delete does not claim to be done', async () => {
  const { first, second, store, errors } = setup()
  await put(second, 'k', 'two')
  const version = (await second.get('k'))?.version ?? ''
  const broken = new Error('down')
  first.breakTouch = () => broken
  expect(await store.touch('k', version, sampleMeta())).toBe(true)
  first.breakDelete = () => broken
  await expect(store.delete('k')).rejects.toBe(broken)
  expect(await read(second, 'k')).toBeUndefined()
  expect(errors.length).toBe(2)
})

test('close closes all, and says when one did not', async () => {
  const broken = new Error('stuck')
  const { first, second, store } = setup()
  let closed = false
  first.close = () => Promise.reject(broken)
  second.close = async () => {
    closed = true
  }
  await expect(store.close()).rejects.toBe(broken)
  expect(closed).toBe(true)
})

test('no tier at all', () => {
  expect(() => tiered([])).toThrow(TypeError)
})
