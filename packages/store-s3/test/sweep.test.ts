import { PutObjectCommand } from '@aws-sdk/client-s3'
import { cache, MemoryPurgeLog } from '@proxy/cache'
import { sampleBytes } from '@proxy/cache/conformance'
import { compose, createHeaders, createRequest, discardBody } from '@proxy/pipeline'
import { startFaultProxy } from '@proxy/testing'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import type { S3Store } from '../src/index.ts'
import { startGate } from './s3-gate.ts'
import { bucket, createStore, meta, put, sdkClient, service } from './support.ts'

const at = await service()
const client = sdkClient(at)
const fault = await startFaultProxy({ port: Number(new URL(at.endpoint).port) })
const gate = await startGate({ port: fault.port })
afterEach(async () => {
  gate.decide = () => undefined
  gate.seen.length = 0
  await fault.setMode({ kind: 'pass' })
})
afterAll(async () => {
  await gate.stop()
  await fault.stop()
})

type Sweeping = S3Store & { sweep: NonNullable<S3Store['sweep']> }
const open = async (prefix: string, options: Parameters<typeof createStore>[1] = {}): Promise<Sweeping> => (await createStore({ ...at, endpoint: gate.endpoint }, { prefix, ...options })) as Sweeping

describe('sweep', () => {
  test('removes what matches, by its metadata as of the last touch, and leaves the rest and what is not ours', async () => {
    const store = await open('sweep-some/')
    for (let i = 0; i < 8; i++) await put(store, `key ${i}`, sampleBytes(i % 2 === 0 ? 100 : 100_000), { url: `https://example.org/${i}` })
    await put(store, 'empty', Buffer.alloc(0), { url: 'https://example.org/0' })
    await put(store, 'long', Buffer.from('x'), { url: `https://example.org/0?${'x'.repeat(20_000)}` })
    await put(store, 'outlived', Buffer.from('x'), { url: 'https://example.org/0', keepUntil: Date.now() + 1 })
    const entry = await store.get('key 3', { body: 'none' })
    expect(await store.touch('key 3', entry?.version ?? '', meta({ url: 'https://example.org/0' }))).toBe(true)
    for (const [name, body] of [
      ['text', 'not ours'],
      ['nothing', ''],
      ['large', 'y'.repeat(50_000)]
    ] as const) {
      await client.send(new PutObjectCommand({ Bucket: bucket, Key: `sweep-some/${name}`, Body: Buffer.from(body), ContentLength: body.length }))
    }
    expect(await store.sweep(({ url }) => url.startsWith('https://example.org/0'), false)).toBe(4)
    for (const key of ['key 0', 'empty', 'long', 'key 3']) expect(await store.get(key), key).toBeUndefined()
    for (const i of [1, 2, 4, 5, 6, 7]) expect((await store.get(`key ${i}`))?.meta.url).toBe(`https://example.org/${i}`)
    await store.close()
  })

  test('only counts where that is wanted; one small request for each object, so many at a time', async () => {
    const store = await open('sweep-count/', { sweepConcurrency: 2 })
    for (let i = 0; i < 10; i++) await put(store, `key ${i}`, sampleBytes(300_000))
    gate.seen.length = 0
    gate.most = 0
    const ranges = new Set<string | undefined>()
    gate.decide = (request) => void ranges.add(request.headers.range)
    expect(await store.sweep(() => true, true)).toBe(10)
    expect(gate.seen).toHaveLength(11)
    expect(gate.seen.every((one) => one.startsWith('GET '))).toBe(true)
    expect(ranges).toEqual(new Set([undefined, 'bytes=0-4095']))
    expect(gate.most).toBeLessThanOrEqual(2)
    expect(await store.get('key 3')).toBeDefined()
    await store.close()
  })

  test('goes on beyond a thousand objects', { timeout: 120_000 }, async () => {
    const store = await open('sweep-pages/', { sweepConcurrency: 16, maxWriteConnections: 32 })
    for (let i = 0; i < 1010; i += 101) {
      const stored = await Promise.all(Array.from({ length: 101 }, (_, j) => put(store, `key ${i + j}`, Buffer.from('x'))))
      expect(stored).not.toContain(false)
    }
    expect(await store.sweep(() => true, false)).toBe(1010)
    expect(await store.sweep(() => true, false)).toBe(0)
    await store.close()
  })

  test('storage that fails for a moment is asked again, and the breakers hear nothing of it', async () => {
    const store = await open('sweep-again/')
    for (let i = 0; i < 3; i++) await put(store, `key ${i}`, Buffer.from('x'))
    let refusals = 0
    gate.decide = () => (refusals++ % 2 === 0 && refusals < 8 ? { status: 503, code: 'SlowDown' } : undefined)
    expect(await store.sweep(() => true, false)).toBe(3)
    expect(store.stats()).toMatchObject({ readBreaker: 'closed', writeBreaker: 'closed', readErrors: 0, writeErrors: 0 })
    await store.close()
  })

  test('storage that is away, or refuses, makes it reject; a store that closes ends it', { timeout: 60_000 }, async () => {
    const store = await open('sweep-away/')
    await put(store, 'key', Buffer.from('x'))
    gate.decide = () => ({ status: 403, code: 'AccessDenied' })
    await expect(store.sweep(() => true, false)).rejects.toMatchObject({ code: 'S3_AUTH' })
    gate.decide = () => undefined
    await fault.setMode({ kind: 'refuse' })
    await expect(store.sweep(() => true, false)).rejects.toMatchObject({ code: 'S3_UNREACHABLE' })
    const last = store.sweep(() => true, false)
    await store.close()
    expect(await last).toBe(0)
  })

  test('what was replaced since it was looked at is not removed', async () => {
    const [store, other] = [await open('sweep-race/'), await createStore(at, { prefix: 'sweep-race/' })]
    await put(store, 'key', Buffer.from('old'))
    const { hold, held } = gate.holdNext('HEAD')
    const swept = store.sweep(() => true, false)
    await held
    expect(await put(other, 'key', Buffer.from('new'))).toBe(true)
    hold.resolve()
    expect(await swept).toBe(0)
    expect(await store.get('key')).toBeDefined()
    await store.close()
    await other.close()
  })

  test('a purge that no log outlives holds after a restart: what it is about is gone', async () => {
    const answer = { made: 0 }
    const start = async (): Promise<{ store: S3Store; layer: ReturnType<typeof cache>; ask: (target: string) => Promise<string> }> => {
      const store = await open('sweep-purge/')
      const layer = cache({ store, purgeLog: new MemoryPurgeLog() })
      const handler = compose(layer)(async () => {
        const headers = createHeaders()
        headers['cache-control'] = 'max-age=60'
        answer.made++
        return { status: 200, headers, body: Buffer.from('x') }
      })
      const ask = async (target: string): Promise<string> => {
        const response = await handler(createRequest({ target, authority: 'example.org' }))
        discardBody(response.body)
        await layer.drain()
        return String(response.headers['cache-status'])
      }
      return { store, layer, ask }
    }
    const first = await start()
    for (const target of ['/a/1', '/a/2', '/b']) await first.ask(target)
    expect(await first.layer.purge({ prefix: 'http://example.org/a/' })).toEqual({ touched: 2 })
    await first.store.close()
    const second = await start()
    expect(await second.ask('/a/1')).toContain('fwd=uri-miss')
    expect(await second.ask('/b')).toContain('hit')
    await second.store.close()
  })

  test('can be left out', async () => {
    const store = await createStore(at, { sweepConcurrency: 0 })
    expect(store.sweep).toBeUndefined()
    await store.close()
    for (const sweepConcurrency of [-1, 1.5, Number.NaN]) await expect(createStore(at, { sweepConcurrency })).rejects.toThrow(TypeError)
  })
})
