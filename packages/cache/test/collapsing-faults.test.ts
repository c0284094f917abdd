import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { type HeldBench, startHeld } from './held-bench.ts'
import { type ClientAnswer, digest, until } from './support.ts'

const outcome = (results: PromiseSettledResult<ClientAnswer>[]): (number | 'cut')[] => results.map((result) => (result.status === 'fulfilled' ? result.value.status : 'cut'))

const bytes = sampleBytes(500_000)

/** The answer of which all clients have left after its first bytes. */
async function leftInTheMiddle(held: HeldBench): Promise<ServerResponse> {
  const clients = [held.leaver('/a'), held.leaver('/a')]
  await held.cacheHas(2)
  const response = held.answer(0, { 'cache-control': 'max-age=60', 'content-length': bytes.length })
  response.write(bytes.subarray(0, 1000))
  await until(() => held.stored.bytes > 1000, 'the first bytes')
  await Promise.all(clients.map((client) => client.leave()))
  return response
}

describe('clients who leave', () => {
  test('the leader, before the header: what was asked for is stored', async () => {
    const held = await startHeld()
    const leader = held.leaver('/a')
    await held.originHas(1)
    await leader.leave()
    held.answer(0).end(bytes)
    await held.bench.middleware.drain()
    const hit = await held.get('/a')
    expect([digest(hit.body), hit.cacheStatus]).toEqual([digest(bytes), 'proxy; hit; ttl=60'])
  })

  test('the leader, while a joiner waits', async () => {
    const held = await startHeld()
    const leader = held.leaver('/a')
    await held.originHas(1)
    const joiner = held.get('/a')
    await held.cacheHas(2)
    await leader.leave()
    held.answer(0).end(bytes)
    expect(digest((await joiner).body)).toBe(digest(bytes))
    expect(held.asked.length).toBe(1)
  })

  test('everybody, in the middle: a small rest is fetched', async () => {
    const held = await startHeld()
    const response = await leftInTheMiddle(held)
    response.end(bytes.subarray(1000))
    await held.bench.middleware.drain()
    expect((await held.get('/a')).cacheStatus).toBe('proxy; hit; ttl=60')
  })

  test('everybody, in the middle: a large rest is given up, at the origin too', async () => {
    const held = await startHeld({ finishBytes: 100_000 })
    const response = await leftInTheMiddle(held)
    if (!response.closed) await once(response, 'close')
    expect(response.writableFinished).toBe(false)
    await held.bench.middleware.drain()
    expect(held.stored).toMatchObject({ bytes: 0, entries: 0 })
    expect((await held.askedAnew()).body.toString()).toBe('x')
  })
})

describe('origins that fail', () => {
  test('in the middle of the body: all are cut, nothing is stored, the next request asks again', async () => {
    const held = await startHeld()
    const clients = await held.crowd(5)
    held.answer(0, { 'cache-control': 'max-age=60', 'content-length': bytes.length }).write(bytes.subarray(0, 100_000))
    await until(() => held.stored.bytes > 100_000, 'the first bytes')
    held.asked[0]?.response.destroy()
    expect(outcome(await Promise.allSettled(clients))).toEqual(['cut', 'cut', 'cut', 'cut', 'cut'])
    await held.bench.middleware.drain()
    expect(held.stored.bytes).toBe(0)
    expect((await held.askedAnew()).status).toBe(200)
  })

  test('before the header: one more try for all who wait, then the error', async () => {
    const held = await startHeld()
    const clients = await held.crowd(10)
    held.asked[0]?.response.destroy()
    await held.originHas(2)
    held.asked[1]?.response.destroy()
    expect(outcome(await Promise.allSettled(clients))).toEqual(Array.from({ length: 10 }, () => 502))
    expect(held.asked.length).toBe(2)
    expect(held.bench.middleware.stats().fills).toBe(0)
  })

  test('before the header, and then not: all but the first are answered', async () => {
    const held = await startHeld()
    const clients = await held.crowd(10)
    held.asked[0]?.response.destroy()
    await held.originHas(2)
    held.answer(1).end('text')
    const statuses = outcome(await Promise.allSettled(clients))
    expect([statuses.filter((status) => status === 502).length, statuses.filter((status) => status === 200).length]).toEqual([1, 9])
    expect(held.asked.length).toBe(2)
  })

  test('before the header: nothing is asked again for clients who have left', async () => {
    const held = await startHeld()
    const leader = held.get('/a')
    await held.originHas(1)
    const joiners = [held.leaver('/a'), held.leaver('/a')]
    await held.cacheHas(3)
    await Promise.all(joiners.map((joiner) => joiner.leave()))
    // A round trip on another connection: the server has seen the others close.
    const other = held.get('/other')
    await held.originHas(2)
    held.answer(1).end()
    await other
    held.asked[0]?.response.destroy()
    expect((await leader).status).toBe(502)
    await held.bench.middleware.drain()
    expect(held.asked.length).toBe(2)
  })

  test('with connectErrorMs, those who wait get the failure that was remembered', async () => {
    const held = await startHeld({ negative: { connectErrorMs: 1000 } })
    const clients = await held.crowd(10)
    held.asked[0]?.response.destroy()
    expect(outcome(await Promise.allSettled(clients))).toEqual(Array.from({ length: 10 }, () => 502))
    expect(held.asked.length).toBe(1)
  })
})
