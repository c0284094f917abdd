import { randomUUID } from 'node:crypto'
import { inspect } from 'node:util'
import { createFakeClock, startFaultProxy, startS3 } from '@proxy/testing'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import type { S3Fault, S3Store, S3StoreOptions } from '../src/index.ts'
import { startGate } from './s3-gate.ts'
import { bucket, createStore, patient, put, service } from './support.ts'
import { startTraffic } from './traffic.ts'

const at = await service()
/** store -> gate (counts, answers) -> fault proxy (cuts, freezes) -> the real server */
const fault = await startFaultProxy({ port: Number(new URL(at.endpoint).port) })
const gate = await startGate({ port: fault.port })
afterEach(async () => {
  gate.decide = () => undefined
  await fault.setMode({ kind: 'pass' })
})
afterAll(async () => {
  await gate.stop()
  await fault.stop()
})

/** More than the breaker's second and its jitter. */
const PROBE_MS = 1300

async function open(options: Partial<S3StoreOptions>) {
  const clock = createFakeClock(Date.now())
  const faults: S3Fault[] = []
  const store = await createStore({ ...at, endpoint: gate.endpoint }, { clock, onFault: (event) => faults.push(event), ...options })
  return { store, clock, faults, traffic: await startTraffic(store) }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}

const idle = (store: S3Store): Promise<void> => until(() => store.stats().pendingWrites === 0)

/** The requests that reach the gate while `act` runs. */
async function requestsDuring(act: () => Promise<unknown>): Promise<number> {
  const before = gate.seen.length
  await act()
  return gate.seen.length - before
}

describe('S1: the storage is down', () => {
  test('refused: no client error, no request beyond one probe per second, recovery', async () => {
    const { store, clock, faults, traffic } = await open({})
    expect(await traffic.run(100)).toMatchObject({ errors: 0 })
    await idle(store)
    expect(await traffic.run(100)).toMatchObject({ errors: 0, fromStore: 100 })

    await fault.setMode({ kind: 'refuse' })
    expect(await traffic.run(200)).toMatchObject({ errors: 0, fromStore: 0 })
    expect(store.stats()).toMatchObject({ readBreaker: 'open', pendingWrites: 0 })
    expect(await requestsDuring(() => traffic.run(100))).toBe(0)
    for (let second = 0; second < 5; second++) {
      clock.advance(PROBE_MS)
      expect(await requestsDuring(() => traffic.run(40))).toBe(1)
    }
    expect(faults.map((event) => `${event.side} ${event.kind}`)).toEqual(['read unreachable'])
    expect(store.stats().droppedWrites.unavailable).toBeGreaterThan(100)

    await fault.setMode({ kind: 'pass' })
    clock.advance(PROBE_MS)
    await traffic.run(20)
    expect(store.stats().readBreaker).toBe('closed')
    expect(await traffic.run(100)).toMatchObject({ errors: 0, fromStore: 100 })
    expect(await put(store, 'new', Buffer.from('x'))).toBe(true)
    await traffic.stop()
    await store.close()
  })

  test('killed in the middle of the traffic: no client error, an answer from the breaker within the first failures', async () => {
    const server = await startS3()
    await server.createBucket(bucket)
    const store = await createStore(server)
    const traffic = await startTraffic(store)
    await traffic.run(100)
    await idle(store)
    const { hits } = store.stats()
    const running = traffic.run(400)
    await until(() => store.stats().hits > hits + 50)
    await server.kill()
    const seen = await running
    const after = await traffic.run(200)
    expect([seen.errors, after.errors, after.fromStore]).toEqual([0, 0, 0])
    expect(seen.fromStore).toBeGreaterThan(50)
    const { readErrors, writeErrors } = store.stats()
    // Those that were under way when it died, and then the probes.
    expect(readErrors + writeErrors).toBeLessThan(60)
    await traffic.stop()
    await store.close()
    await server.stop()
  })
})

describe('S2: the storage is slow', () => {
  test('frozen: a request waits for the deadline at most, then the breaker answers; it recovers by itself', async () => {
    const server = await startS3()
    await server.createBucket(bucket)
    const clock = createFakeClock(Date.now())
    const store = await createStore(server, { clock, firstByteTimeoutMs: 200, requestTimeoutMs: 2000 })
    const traffic = await startTraffic(store)
    await traffic.run(100)
    await idle(store)
    server.freeze()
    const seen = await traffic.run(300)
    expect(seen).toMatchObject({ errors: 0, fromStore: 0 })
    expect(seen.slowestMs).toBeLessThan(10 * 200)
    const { timeouts, readBreaker } = store.stats()
    expect(readBreaker).toBe('open')
    // The clients that were waiting when it opened.
    expect(timeouts).toBeGreaterThanOrEqual(5)
    expect(timeouts).toBeLessThanOrEqual(20 + 5)
    const quick = await traffic.run(100)
    expect(quick.errors).toBe(0)
    expect(store.stats().timeouts).toBeLessThanOrEqual(timeouts + 20)
    server.thaw()
    await until(() => {
      clock.advance(PROBE_MS)
      void traffic.run(1)
      return store.stats().readBreaker === 'closed'
    })
    await idle(store)
    expect(await traffic.run(100)).toMatchObject({ errors: 0 })
    expect(store.stats().readBreaker).toBe('closed')
    await traffic.stop()
    await store.close()
    await server.stop()
  })

  test('slower than the deadline: the same', async () => {
    const { store, faults, traffic } = await open({ firstByteTimeoutMs: 150 })
    await fault.setMode({ kind: 'delay', ms: 1000 })
    const seen = await traffic.run(200)
    expect(seen).toMatchObject({ errors: 0, fromStore: 0 })
    expect(seen.slowestMs).toBeLessThan(10 * 150)
    expect(store.stats().readBreaker).toBe('open')
    expect(faults.map((event) => `${event.side} ${event.kind}`)).toContain('read timeout')
    await traffic.stop()
    await store.close()
  })
})

describe('S3: the storage asks for fewer requests', () => {
  test('writes are given up at the first 503, reads go on', async () => {
    const { store, clock, faults, traffic } = await open({})
    await traffic.run(100)
    await idle(store)
    gate.decide = (request) => (request.method === 'PUT' ? { status: 503, code: 'SlowDown' } : undefined)
    expect(await put(store, 'new', Buffer.from('x'))).toBe(false)
    expect(store.stats()).toMatchObject({ writeBreaker: 'open', readBreaker: 'closed', failedWrites: 1 })
    const writes = await requestsDuring(async () => {
      for (let i = 0; i < 50; i++) expect(await put(store, `n${i}`, Buffer.from('x'))).toBe(false)
    })
    expect(writes).toBe(0)
    expect(store.stats().droppedWrites.unavailable).toBeGreaterThanOrEqual(50)
    expect(await traffic.run(200)).toMatchObject({ errors: 0, fromStore: 200 })
    expect(faults.map((event) => `${event.side} ${event.kind}`)).toEqual(['write throttled'])
    gate.decide = () => undefined
    clock.advance(PROBE_MS)
    expect(await put(store, 'new', Buffer.from('x'))).toBe(true)
    expect(store.stats().writeBreaker).toBe('closed')
    await traffic.stop()
    await store.close()
  })

  test('a read that is told so gives up the writes at once, and reads after some', async () => {
    const { store, traffic } = await open({})
    gate.decide = (request) => (request.method === 'GET' ? { status: 503, code: 'SlowDown' } : undefined)
    await expect(store.get('k')).rejects.toMatchObject({ code: 'S3_THROTTLED' })
    expect(store.stats()).toMatchObject({ writeBreaker: 'open', readBreaker: 'closed' })
    const requests = await requestsDuring(async () => expect(await traffic.run(300)).toMatchObject({ errors: 0 }))
    expect(requests).toBeLessThanOrEqual(20 + 5)
    expect(store.stats().readBreaker).toBe('open')
    await traffic.stop()
    await store.close()
  })
})

describe('S4: the credentials are refused', () => {
  const secretAccessKey = 'ThisIsTheWrongSecret0123456789'

  test('no client error, one report, the breaker open at once, and nothing secret in any error', async () => {
    const store = await (async () => {
      const { S3Store: Store } = await import('../src/index.ts')
      return new Store({ ...patient, ...at, endpoint: gate.endpoint, bucket, secretAccessKey, clock: createFakeClock(Date.now()), onFault: (event) => faults.push(event) })
    })()
    const faults: S3Fault[] = []
    const error = await store.prepare().catch((thrown: unknown) => thrown)
    const first = await store.get('k').catch((thrown: unknown) => thrown)
    expect(first).toMatchObject({ code: 'S3_AUTH', message: 'the object storage refused the credentials' })
    const second = await store.get('k').catch((thrown: unknown) => thrown)
    expect(second).toMatchObject({ code: 'S3_UNAVAILABLE' })
    const traffic = await startTraffic(store)
    const requests = await requestsDuring(async () => expect(await traffic.run(500)).toMatchObject({ errors: 0, fromStore: 0 }))
    expect(requests).toBe(0)
    expect(faults.map((event) => `${event.side} ${event.kind}`)).toEqual(['read auth'])
    const shown = inspect([error, first, second, faults], { depth: null, showHidden: true })
    expect(shown).toContain('SignatureDoesNotMatch 403')
    for (const secret of [secretAccessKey, at.accessKeyId, bucket, '127.0.0.1', 'AWS4-HMAC', 'Signature=']) expect(shown).not.toContain(secret)
    await traffic.stop()
    await store.close()
  })

  test('refused while running: hits become misses, one report per outage, and it recovers when the credentials do', async () => {
    let wrong = false
    // Expired at once, so that they are asked for anew each time.
    const credentials = async () => ({ accessKeyId: at.accessKeyId, secretAccessKey: wrong ? secretAccessKey : at.secretAccessKey, expiration: new Date() })
    const faults: S3Fault[] = []
    const clock = createFakeClock(Date.now())
    const { accessKeyId: _id, secretAccessKey: _secret, ...place } = at
    const { S3Store: Store } = await import('../src/index.ts')
    const store = new Store({ ...patient, ...place, bucket, prefix: 'rotated/', credentials, clock, onFault: (event) => faults.push(event) })
    await store.prepare()
    const traffic = await startTraffic(store)
    await traffic.run(100)
    await idle(store)
    wrong = true
    expect(await traffic.run(300)).toMatchObject({ errors: 0 })
    clock.advance(PROBE_MS)
    expect(await traffic.run(100)).toMatchObject({ errors: 0, fromStore: 0 })
    expect(faults.map((event) => event.kind)).toEqual(['auth'])
    wrong = false
    clock.advance(PROBE_MS)
    await traffic.run(20)
    expect(await traffic.run(100)).toMatchObject({ errors: 0, fromStore: 100 })
    await traffic.stop()
    await store.close()
  })

  test("the storage's own words reach nobody", async () => {
    const { store, faults, traffic } = await open({})
    gate.decide = () => ({ status: 403, code: 'AccessDenied' })
    const error = await store.get('k').catch((thrown: unknown) => thrown)
    expect(inspect([error, faults], { depth: null, showHidden: true })).not.toMatch(/secret detail|cached-objects|BucketName/)
    await traffic.stop()
    await store.close()
  })
})

describe('S6: the clocks differ', () => {
  for (const minutes of [20, -20]) {
    test(`by ${minutes} minutes: works within two requests`, async () => {
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + minutes * 60_000 })
      try {
        const { S3Store: Store } = await import('../src/index.ts')
        const store = new Store({ ...patient, ...at, bucket, prefix: `skew${minutes}-${randomUUID()}/` })
        const first = await store.get('k').catch((error: { code: string }) => error.code)
        expect(first).toBe('S3_CLOCK_SKEW')
        expect(await store.get('k')).toBeUndefined()
        const written = [await put(store, 'k', Buffer.from('x')), await put(store, 'k', Buffer.from('x'))]
        expect(written[1]).toBe(true)
        expect((await store.get('k'))?.meta.length).toBe(1)
        expect(store.stats()).toMatchObject({ readBreaker: 'closed', writeBreaker: 'closed', readErrors: 0, writeErrors: 0 })
        await store.close()
      } finally {
        vi.useRealTimers()
      }
    })
  }
})
