import { sampleBytes } from '@proxy/cache/conformance'
import type { Body, Flow } from '@proxy/pipeline'
import { readAll, toSource } from '@proxy/pipeline'
import { startFaultProxy } from '@proxy/testing'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import type { S3StoreOptions } from '../src/index.ts'
import { createStore, digest, put, service } from './support.ts'

const at = await service()
const fault = await startFaultProxy({ port: Number(new URL(at.endpoint).port) })
afterEach(() => fault.setMode({ kind: 'pass' }))
afterAll(() => fault.stop())

const endpoint = `http://127.0.0.1:${fault.port}`
const body = sampleBytes(8_000_000)
const open = (options: Partial<S3StoreOptions>) => createStore({ ...at, endpoint }, options)
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await pause(5)
}

/** Reads the first chunk and pauses. */
function begin(source: Body | undefined): { flow: Flow; first: Promise<void>; outcome: Promise<{ result: string; bytes: Buffer }>; flowing: { on: boolean } } {
  const flowing = { on: false }
  const chunks: Uint8Array[] = []
  const first = Promise.withResolvers<void>()
  const over = Promise.withResolvers<{ result: string; bytes: Buffer }>()
  const flow = toSource(source ?? null).start({
    data(chunk) {
      chunks.push(chunk)
      first.resolve()
      return flowing.on
    },
    end: () => over.resolve({ result: 'end', bytes: Buffer.concat(chunks) }),
    error: (error) => over.resolve({ result: error.code, bytes: Buffer.concat(chunks) })
  })
  return { flow, first: first.promise, outcome: over.promise, flowing }
}

describe('reads', () => {
  test('give up at the deadline of the first byte, whatever the storage does then', async () => {
    const store = await open({ firstByteTimeoutMs: 100 })
    await fault.setMode({ kind: 'freeze' })
    const started = performance.now()
    await expect(store.get('k')).rejects.toMatchObject({ code: 'S3_TIMEOUT', status: 502 })
    const took = performance.now() - started
    expect(took).toBeGreaterThan(90)
    expect(took).toBeLessThan(1000)
    expect(store.stats()).toMatchObject({ timeouts: 1, readErrors: 1 })
    await store.close()
  })

  test('fail when the body breaks off inside its first block: no entry is handed out', async () => {
    const store = await open({})
    await put(store, 'k', body)
    await fault.setMode({ kind: 'cutAfter', bytes: 30_000 })
    await expect(store.get('k')).rejects.toMatchObject({ code: 'S3_UNREACHABLE' })
    await store.close()
  })

  test('give up when the caller does, which says nothing about the storage', async () => {
    const store = await open({ breaker: { failureThreshold: 1 } })
    await fault.setMode({ kind: 'freeze' })
    const controller = new AbortController()
    const reading = store.get('k', { signal: controller.signal })
    controller.abort()
    await expect(reading).rejects.toMatchObject({ code: 'S3_ABORTED' })
    await expect(store.get('k', { signal: controller.signal })).rejects.toMatchObject({ code: 'S3_ABORTED' })
    expect(store.stats()).toMatchObject({ readBreaker: 'closed', readErrors: 0 })
    await store.close()
  })

  test('a body that falls silent is broken off, never ended', async () => {
    const store = await open({ idleTimeoutMs: 150 })
    await put(store, 'k', body)
    const entry = await store.get('k')
    const reading = begin(await entry?.open())
    await reading.first
    await fault.setMode({ kind: 'freeze' })
    reading.flowing.on = true
    reading.flow.resume()
    const { result, bytes } = await reading.outcome
    expect(result).toBe('S3_TIMEOUT')
    expect(bytes.equals(body.subarray(0, bytes.length))).toBe(true)
    expect(store.stats()).toMatchObject({ timeouts: 1 })
    await store.close()
  })

  test('a body that breaks off is never ended', async () => {
    const store = await open({})
    await put(store, 'k', body)
    const entry = await store.get('k')
    const reading = begin(await entry?.open())
    await reading.first
    await fault.setMode({ kind: 'cutAfter', bytes: 1_000_000 })
    reading.flowing.on = true
    reading.flow.resume()
    const { result, bytes } = await reading.outcome
    expect(result).toBe('S3_UNREACHABLE')
    expect(bytes.equals(body.subarray(0, bytes.length))).toBe(true)
    expect(store.stats()).toMatchObject({ readErrors: 1 })
    await store.close()
  })

  test('a slow reader is no silence: while it pauses, nothing is counted against the storage', async () => {
    const store = await open({ idleTimeoutMs: 250 })
    await put(store, 'k', body)
    const reading = begin(await (await store.get('k'))?.open())
    await reading.first
    await pause(800)
    reading.flowing.on = true
    reading.flow.resume()
    const { result, bytes } = await reading.outcome
    expect(result).toBe('end')
    expect(digest(bytes)).toBe(digest(body))
    expect(store.stats()).toMatchObject({ readErrors: 0 })
    await store.close()
  })

  test('an entry that nobody opens lets go of its connection, and can be opened all the same while it is the same', async () => {
    const store = await open({ idleTimeoutMs: 250 })
    await put(store, 'k', body)
    const entry = await store.get('k')
    const replaced = await store.get('k')
    await pause(800)
    expect(digest(await readAll((await entry?.open()) ?? null, 10_000_000))).toBe(digest(body))
    await put(store, 'k', sampleBytes(10))
    await expect(replaced?.open()).rejects.toMatchObject({ code: 'S3_CHANGED' })
    expect(store.stats()).toMatchObject({ readErrors: 0, readBreaker: 'closed' })
    await store.close()
  })

  test('reject at once while slow readers hold all connections, which says nothing about the storage', async () => {
    const store = await open({ maxReadConnections: 2, breaker: { failureThreshold: 1 } })
    await put(store, 'k', body)
    await put(store, 'small', sampleBytes(10))
    const held = [await store.get('k'), await store.get('k')]
    await expect(store.get('small')).rejects.toMatchObject({ code: 'S3_UNAVAILABLE' })
    for (const entry of held) entry?.discard()
    await until(async () => (await store.get('small').catch(() => undefined))?.meta.length === 10)
    // Short reads queue for a connection.
    const many = await Promise.all(Array.from({ length: 10 }, () => store.get('small')))
    expect(many.map((entry) => entry?.meta.length)).toEqual(Array(10).fill(10))
    expect(store.stats()).toMatchObject({ readBreaker: 'closed', readErrors: 0 })
    await store.close()
  })

  test('a body that broke off before it was opened is read anew', async () => {
    const store = await open({})
    await put(store, 'k', body)
    const entry = await store.get('k')
    await fault.setMode({ kind: 'reset' })
    await until(async () => store.stats().readErrors === 1)
    await fault.setMode({ kind: 'pass' })
    expect(digest(await readAll((await entry?.open()) ?? null, 10_000_000))).toBe(digest(body))
    await store.close()
  })
})

test('options that cannot work are refused', async () => {
  const { S3Store } = await import('../src/index.ts')
  for (const options of [
    { bucket: '' },
    { bucket: 'b', endpoint: 's3.example.org' },
    { bucket: 'b', partBytes: 1000 },
    { bucket: 'b', firstByteTimeoutMs: 0 },
    { bucket: 'b', maxPendingBytes: Number.NaN },
    { bucket: 'b', accessKeyId: 'only' },
    { bucket: 'b', accessKeyId: 'a', secretAccessKey: 'b', credentials: async () => ({ accessKeyId: 'a', secretAccessKey: 'b' }) }
  ]) {
    expect(() => new S3Store(options)).toThrow(TypeError)
  }
  expect(() => new S3Store({ bucket: 'b', breaker: { failureThreshold: 0 } })).toThrow(RangeError)
})

test('an object name that S3 does not take is refused, and is no fault of the storage', async () => {
  const store = await createStore(at, { objectKey: (key) => key, prefix: '', breaker: { failureThreshold: 1 } })
  for (const key of ['', 'x'.repeat(1025)]) {
    await expect(store.get(key)).rejects.toMatchObject({ code: 'S3_REFUSED' })
    await expect(store.delete(key)).rejects.toMatchObject({ code: 'S3_REFUSED' })
    expect(await put(store, key, sampleBytes(1))).toBe(false)
  }
  expect(store.stats()).toMatchObject({ readBreaker: 'closed', writeBreaker: 'closed' })
  await store.close()
})

test("what onFault throws becomes a warning, not the process's end", async () => {
  const { S3Store } = await import('../src/index.ts')
  const mistaken = new S3Store({
    ...at,
    secretAccessKey: 'wrong',
    bucket: 'any',
    firstByteTimeoutMs: 10_000,
    onFault: () => {
      throw new Error('mistake of a listener')
    }
  })
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
  await expect(mistaken.get('k')).rejects.toMatchObject({ code: 'S3_AUTH' })
  expect((await warned).message).toBe('mistake of a listener')
  await mistaken.close()
})

test('the checksums of the SDK can be turned on', async () => {
  const options = { requestChecksumCalculation: 'WHEN_SUPPORTED', responseChecksumValidation: 'WHEN_SUPPORTED', forcePathStyle: true, maxAttempts: 2 } as const
  const store = await createStore(at, options)
  for (const bytes of [sampleBytes(1000), sampleBytes(6_000_000)]) {
    expect(await put(store, 'k', bytes, {}, 1_000_000)).toBe(true)
    expect(digest(await readAll((await (await store.get('k'))?.open()) ?? null, 10_000_000))).toBe(digest(bytes))
  }
  await store.close()
})
