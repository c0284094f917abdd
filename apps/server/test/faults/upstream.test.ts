import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type S3Service, sharedS3, startFaultProxy, startRedis } from '@proxy/testing'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Config } from '../../src/index.ts'
import { until } from '../helpers.ts'
import { answerWith, bytesOf, contentOf, holdPart, startContentOrigin, writeHeadOf } from './content.ts'
import { ask, load, type Outcome, problems, untilStored, verdictOf, verdicts, waitMs } from './load.ts'
import { expectSound, imageProxy, memoryFirst, type Places, readMetrics, secretName, startInProcess } from './subject.ts'

const CLIENTS = 20

let s3: S3Service

beforeAll(async () => {
  s3 = await sharedS3()
})

/** With the largest body that whoever comes late to a running fill can have from its first byte on. */
const stores: readonly (readonly [string, (places: Places) => Config, string])[] = [
  ['memory and Redis', memoryFirst, '6m'],
  ['Redis and S3', (places) => imageProxy({ ...places, s3, bucket: secretName('bucket') }), '200k']
]

async function startRedisHere(): Promise<string> {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  return redis.url
}

/** The configuration with another time limit for the header of an answer. */
function withHeadersTimeout(config: Config, headers: string): Config {
  return { ...config, pools: Object.fromEntries(Object.entries(config.pools).map(([name, pool]) => [name, { ...pool, timeouts: { headers } }])) }
}

/** An answer that says what the client may know, and nothing of what went wrong inside. */
function expectBareFailure({ status, headers, text, complete }: Outcome, expected: { status: number; phrase: string; proxyStatus: string }): void {
  expect({ complete, status, text, proxyStatus: headers['proxy-status'] }).toEqual({ complete: true, status: expected.status, text: `${expected.phrase}\n`, proxyStatus: expected.proxyStatus })
  expect(JSON.stringify(headers)).not.toMatch(/127\.0\.0\.1|ECONN|undici|node:| at /)
}

describe('an origin that does not answer', () => {
  test('refuses: 502 at once, remembered for no longer than configured', async () => {
    const origin = await startContentOrigin()
    const door = await startFaultProxy({ port: origin.port })
    onTestFinished(() => door.stop())
    const subject = await startInProcess(memoryFirst({ origin: `http://127.0.0.1:${door.port}`, redis: await startRedisHere() }))
    const before = await load(subject, { path: (i) => `/1k/before/${i % 20}`, requests: 40 })
    expect(problems(before)).toEqual([])

    await door.setMode({ kind: 'refuse' })
    const outcomes = await load(subject, { path: (i) => (i % 5 === 0 ? `/1k/before/${i % 20}` : `/1k/down/${i}`) })
    const failed = outcomes.filter(({ path }) => path.startsWith('/1k/down/'))
    expect(failed.length).toBe(400)
    for (const outcome of failed) expectBareFailure(outcome, { status: 502, phrase: 'Bad Gateway', proxyStatus: 'proxy; error=connection_refused' })
    // What is stored is served meanwhile.
    expect(problems(outcomes.filter(({ path }) => path.startsWith('/1k/before/')))).toEqual([])
    expect(waitMs(outcomes, 0.99)).toBeLessThan(500)

    const repeated = await load(subject, { path: (i) => `/1k/again/${i % 5}`, requests: 100 })
    expect(verdicts(repeated)).toEqual({ failed: 100 })
    expect(repeated.map(({ cache }) => cache)).toContain('NEGATIVE')
    for (const outcome of repeated) expectBareFailure(outcome, { status: 502, phrase: 'Bad Gateway', proxyStatus: 'proxy; error=connection_refused' })

    await door.setMode({ kind: 'pass' })
    const backMs = performance.now()
    await until(async () => verdictOf(await ask(subject, '/1k/again/0')) === 'right')
    expect(performance.now() - backMs).toBeLessThan(10_000)
    expect(problems(await load(subject, { path: (i) => `/1k/down/${i}`, requests: 100 }))).toEqual([])
    await expectSound(subject, { storeErrors: [], secrets: [] })
  })

  test('accepts and hangs: 504 when the time is up, and the connection is not used again', async () => {
    let hanging = true
    const sockets = new Map<Socket, number>()
    const origin = await startContentOrigin((request, response) => {
      sockets.set(request.socket, (sockets.get(request.socket) ?? 0) + 1)
      if (!hanging) answerWith(request.url ?? '', response)
    })
    const timeoutMs = 500
    const subject = await startInProcess(withHeadersTimeout(memoryFirst({ origin: origin.url, redis: await startRedisHere() }), `${timeoutMs}ms`))
    const outcomes = await load(subject, { path: (i) => `/1k/hang/${i}`, clients: 125 })
    for (const outcome of outcomes) expectBareFailure(outcome, { status: 504, phrase: 'Gateway Timeout', proxyStatus: 'proxy; error=http_response_timeout' })
    expect(Math.min(...outcomes.map(({ startedMs, answeredMs }) => answeredMs - startedMs))).toBeGreaterThan(timeoutMs * 0.95)
    // 100 ms later at the most; the machine may be busy.
    expect(waitMs(outcomes, 0.99)).toBeLessThan(timeoutMs + 1000)
    expect([...sockets.values()].filter((requests) => requests !== 1)).toEqual([])
    await until(() => [...sockets.keys()].every((socket) => socket.destroyed))

    hanging = false
    expect(problems(await load(subject, { path: (i) => `/1k/answered/${i}`, requests: 100 }))).toEqual([])
    await expectSound(subject, { storeErrors: [], secrets: [] })
  })
})

describe.each(stores)('with %s', (_, configOf, joinable) => {
  test('an origin that breaks off in the middle of a body: clients see it, nothing is kept, and the next one is served', async () => {
    const seen = new Set<string>()
    const origin = await startContentOrigin((request, response) => {
      const path = request.url ?? ''
      if (seen.has(path)) answerWith(path, response)
      else {
        seen.add(path)
        breakOff(path, response)
      }
    })
    const subject = await startInProcess(configOf({ origin: origin.url, redis: await startRedisHere() }))
    const kinds = ['1k', '200k', '200k-chunked', '200k/close', 'none', 'error']
    // Four clients ask for the same at the same time.
    const path = (i: number): string => `/${kinds[Math.floor(i / 4) % kinds.length]}/${Math.floor(i / 4)}`
    const outcomes = await load(subject, { path })
    const { wrong = 0, cut = 0, failed = 0 } = verdicts(outcomes)
    expect(wrong).toBe(0)
    expect(cut).toBeGreaterThan(100)
    for (const outcome of outcomes) if (verdictOf(outcome) === 'failed') expect(outcome.status).toBe(502)

    // Whoever comes now asks the origin again, if nobody has since, and gets it whole.
    const after = await load(subject, { path: (i) => path(4 * i), requests: 125 })
    expect(problems(after)).toEqual([])
    expect(seen.size).toBe(125)
    expect(Object.values(origin.asked('/')).filter((count) => count < 2)).toEqual([])
    await expectSound(subject, { storeErrors: [], secrets: [], incomplete: { failed: cut } })
    expect(failed + cut).toBeLessThanOrEqual(500)
  })

  test('clients that leave in the middle of an answer: it is fetched to its end all the same, and the next one is a hit', async () => {
    const held = new Map<string, () => void>()
    const origin = await startContentOrigin((request, response) => holdPart(request.url ?? '', response, held))
    const subject = await startInProcess(configOf({ origin: origin.url, redis: await startRedisHere() }))
    const paths = Array.from({ length: 500 }, (_, i) => `/${i % 10 === 0 ? '200k' : i % 10 === 1 ? '200k-chunked' : '1k'}/left/${i}`)
    for (let first = 0; first < paths.length; first += 100) {
      const wave = paths.slice(first, first + 100)
      const left = await Promise.all(wave.map((path) => ask(subject, path, { onData: () => false })))
      expect(verdicts(left)).toEqual({ cut: 100 })
      await until(async () => (await readMetrics(subject))('http_responses_incomplete_total', { outcome: 'aborted' }) === first + 100)
      // Only now does the rest come.
      for (const path of wave) (held.get(path) as () => void)()
      const next = await Promise.all(wave.map((path) => untilStored(subject, path)))
      expect(problems(next)).toEqual([])
      expect([...new Set(next.map(({ cache }) => cache))]).toEqual(['HIT'])
    }
    expect(Object.values(origin.asked('/')).filter((count) => count !== 1)).toEqual([])
    await expectSound(subject, { storeErrors: [], secrets: [], incomplete: { aborted: 500 } })
  })

  test('50 clients that join a running fill get its bytes while it runs: one request to the origin', async () => {
    const held = new Map<string, () => void>()
    const origin = await startContentOrigin((request, response) => holdPart(request.url ?? '', response, held))
    const subject = await startInProcess(configOf({ origin: origin.url, redis: await startRedisHere() }))
    const joined = 50
    for (const path of [`/${joinable}/joined`, ...Array.from({ length: 9 }, (_, i) => `/${i % 2 === 0 ? '200k' : '200k-chunked'}/joined/${i}`)]) {
      const begun = new Set<number>()
      const asked = Array.from({ length: joined }, (_, i) => ask(subject, path, { onData: () => void begun.add(i) }))
      // Everybody has something, and the origin has not sent the rest: it does so now.
      await until(() => begun.size === joined)
      ;(held.get(path) as () => void)()
      const outcomes = await Promise.all(asked)
      expect(problems(outcomes)).toEqual([])
      expect(outcomes.filter(({ cache }) => cache === 'MISS').length).toBe(1)
      expect(outcomes.filter(({ cache }) => cache === 'COLLAPSED').length).toBe(joined - 1)
    }
    expect(Object.values(origin.asked('/'))).toEqual(Array.from({ length: 10 }, () => 1))
    await expectSound(subject, { storeErrors: [], secrets: [] })
  })

  test('one who reads nothing for a while holds up nobody, and gets the same bytes', async () => {
    const origin = await startContentOrigin()
    const subject = await startInProcess(configOf({ origin: origin.url, redis: await startRedisHere() }))
    const { promise: othersDone, resolve: goOn } = Promise.withResolvers<void>()
    const slow = [ask(subject, '/20m/slow', { readWhen: othersDone })]
    await until(() => origin.requests.length === 1)
    slow.push(ask(subject, '/20m/slow', { readWhen: othersDone }))
    const others = await Promise.all(Array.from({ length: 4 }, () => ask(subject, '/20m/slow')))
    goOn()
    expect(problems([...others, ...(await Promise.all(slow))])).toEqual([])
    expect(origin.requests.length).toBe(1)
    await expectSound(subject, { storeErrors: [], secrets: [] })
  })
})

test('clients that all leave a large answer: it is given up', async () => {
  const given: ServerResponse[] = []
  const origin = await startContentOrigin((request, response) => {
    given.push(response)
    holdPart(request.url ?? '', response, new Map())
  })
  const subject = await startInProcess(memoryFirst({ origin: origin.url, redis: await startRedisHere() }))
  const left = await Promise.all(Array.from({ length: CLIENTS }, () => ask(subject, '/20m/left', { onData: () => false })))
  expect(verdicts(left)).toEqual({ cut: CLIENTS })
  // Who came when the first ones had left already made it start anew.
  await until(() => given.every(({ closed }) => closed))
  expect(given.filter(({ writableFinished }) => writableFinished)).toEqual([])
  await expectSound(subject, { storeErrors: [], secrets: [], incomplete: { aborted: CLIENTS } })
})

/** Sends the head and half of the body, then cuts the connection. `/KIND/close/…`: of a body that only the close of the connection ends. */
function breakOff(path: string, response: ServerResponse): void {
  const half = bytesOf(path).subarray(0, contentOf(path).length >> 1)
  const { socket } = response
  const reset = (): void => void socket?.resetAndDestroy()
  if (path.includes('/close/')) {
    socket?.write('HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nCache-Control: max-age=86400\r\nConnection: close\r\n\r\n')
    socket?.write(half, reset)
    return
  }
  writeHeadOf(path, response)
  response.write(half, () => (path.endsWith('0') ? response.destroy() : reset()))
}
