import { type S3Server, startFaultProxy, startRedis, startS3 } from '@proxy/testing'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Config } from '../../src/index.ts'
import { until } from '../helpers.ts'
import { contentOf, mixture, startContentOrigin } from './content.ts'
import { ask, load, type Outcome, problems, type Subject, slowerThan, untilStored, verdictOf, verdicts, waitMs } from './load.ts'
import { startRelay } from './relay.ts'
import { expectSound, imageProxy, secretName, startInProcess, withoutContent } from './subject.ts'

/** Far above what an object takes here, so that only those that waited in vain are as slow. */
const FIRST_BYTE_MS = 800
/** The first bytes of a body are verified before anybody is told that it is there. */
const BLOCK_BYTES = 64 * 1024

const CLIENTS = 20
const OUTAGE_MS = 1500
/** Of 20 who wait, the first five who do so in vain make it stop; the other ones, and the next request of four of those five, wait as long. */
const MAX_SLOW = CLIENTS + 4

let s3: S3Server

beforeAll(async () => {
  s3 = await startS3()
})
afterAll(() => s3?.stop())

/** Redis, an origin, and a configuration in which S3 is reached through `port`. */
async function startParts() {
  const bucket = secretName('bucket')
  const [redis, origin] = await Promise.all([startRedis(), startContentOrigin()])
  onTestFinished(() => redis.stop())
  const places = { origin: origin.url, redis: redis.url }
  return {
    origin,
    places,
    secrets: [bucket, s3.secretAccessKey, s3.accessKeyId],
    config(port: number, { firstByteTimeout, ...credentials }: { accessKeyId?: string; secretAccessKey?: string; firstByteTimeout?: string } = {}): Config {
      const { region, accessKeyId, secretAccessKey } = s3
      const config = imageProxy({ ...places, bucket, s3: { region, accessKeyId, secretAccessKey, ...credentials, endpoint: `http://127.0.0.1:${port}` } })
      return firstByteTimeout === undefined ? config : { ...config, stores: { ...config.stores, s3: { ...config.stores?.s3, bucket, firstByteTimeout } } }
    }
  }
}

const hasty = { firstByteTimeout: `${FIRST_BYTE_MS}ms` }

/** 25 small objects, again and again. */
const content = (name: string) => (i: number) => `/1k/${name}/${i % 25}`

/** Objects are fetched from the origin once and are in S3 from then on. */
async function expectStoring(subject: Subject, asked: (prefix: string) => Record<string, number>, name: string): Promise<void> {
  await untilFetchedAndStored(subject, `/1k/${name}-first`)
  const path = content(name)
  expect(problems(await load(subject, { path, requests: 25 }))).toEqual([])
  const stored = await Promise.all(Array.from({ length: 25 }, (_, i) => untilStored(subject, path(i))))
  expect(problems(stored)).toEqual([])
  expect(stored.filter(({ cache }) => cache !== 'HIT')).toEqual([])
  expect(problems(await load(subject, { path, requests: 50 }))).toEqual([])
  expect(Object.values(asked(`/1k/${name}/`))).toEqual(Array.from({ length: 25 }, () => 1))
}

/** As long as S3 is away nothing is stored, so it is fetched again. */
async function untilFetchedAndStored(subject: Subject, path: string): Promise<void> {
  await until(async () => (await ask(subject, path)).cache === 'HIT')
}

/** A fault in the middle of a load. Who came after it is answered right; before it, a body that was already on its way to its client may be cut, never be wrong. */
async function loadAcross(subject: Subject, path: (i: number) => string, fault: () => unknown): Promise<{ readonly outcomes: Outcome[]; readonly cut: number }> {
  let faultMs = Number.POSITIVE_INFINITY
  const strike = (): unknown => {
    faultMs = performance.now()
    return fault()
  }
  const outcomes = await load(subject, { path, at: { 150: strike } })
  const hurt = outcomes.filter((outcome) => verdictOf(outcome) !== 'right')
  expect(problems(hurt.filter(({ startedMs, path: asked }) => startedMs > faultMs || contentOf(asked).length <= BLOCK_BYTES))).toEqual([])
  expect(verdicts(hurt).wrong ?? 0).toBe(0)
  expect(hurt.length).toBeLessThan(CLIENTS)
  return { outcomes, cut: hurt.length }
}

/** Passes while S3 is away, long enough for it to be tried again. */
function outage(): Promise<void> {
  const endMs = performance.now() + OUTAGE_MS
  return until(() => performance.now() > endMs)
}

const cachesOf = (outcomes: readonly Outcome[]): string[] => [...new Set(outcomes.map(({ cache }) => cache))].sort()

describe('S3', () => {
  test('refused at the start: the server starts and answers everything; when S3 comes, content is stored', async () => {
    const { origin, config, places, secrets } = await startParts()
    const door = await startFaultProxy({ port: s3.port })
    onTestFinished(() => door.stop())
    await door.setMode({ kind: 'refuse' })
    const startedMs = performance.now()
    const subject = await startInProcess(config(door.port))
    expect(performance.now() - startedMs).toBeLessThan(2000)

    const without = await load(subject, { path: mixture('away') })
    expect(problems(without)).toEqual([])
    // Failures are remembered all the same, content is not.
    expect(cachesOf(without)).not.toContain('HIT')
    expect(cachesOf(without)).toContain('NEGATIVE')

    // What it costs that S3 is away, beside a server at the same time that knows none.
    const control = await startInProcess(withoutContent(places))
    const path = mixture('beside')
    const [these, those] = await Promise.all([load(subject, { path, clients: CLIENTS / 2, requests: 250 }), load(control, { path, clients: CLIENTS / 2, requests: 250 })])
    expect(problems([...these, ...those])).toEqual([])
    // Twice as long allows for what else the machine does; a wait for the service would be in the median.
    expect(waitMs(these, 0.5)).toBeLessThan(2 * waitMs(those, 0.5) + 50)
    expect(waitMs(these, 0.99)).toBeLessThan(2 * waitMs(those, 0.99) + 100)

    await door.setMode({ kind: 'pass' })
    await expectStoring(subject, origin.asked, 'later')
    await expectSound(subject, { storeErrors: ['s3'], secrets })
  })

  test('connections reset under load: everything comes from the origin, and S3 is probed once a second', async () => {
    const { origin, config, secrets } = await startParts()
    const relay = await startRelay(s3.port)
    const subject = await startInProcess(config(relay.port))
    await expectStoring(subject, origin.asked, 'before')

    // 6 MiB and 200 KiB objects are on their way from the origin to S3 and back, and small ones from S3 to clients.
    const { cut } = await loadAcross(
      subject,
      (i) => (i % 2 === 0 ? content('before')(i / 2) : mixture('reset')(i)),
      () => relay.setMode('reset')
    )
    const { accepted } = relay
    const startedMs = performance.now()
    const lasting = await load(subject, { path: content('before'), requests: outage() })
    expect(problems(lasting)).toEqual([])
    // Enough to tell; how many there are is the machine's business.
    expect(lasting.length).toBeGreaterThan(100)
    expect(cachesOf(lasting)).not.toContain('HIT')
    expect(relay.accepted - accepted).toBeLessThanOrEqual(1 + Math.ceil((performance.now() - startedMs) / 1000))

    relay.setMode('pass')
    await untilFetchedAndStored(subject, '/1k/after')
    expect(problems(await load(subject, { path: content('before') }))).toEqual([])
    await expectStoring(subject, origin.asked, 'again')
    await expectSound(subject, { storeErrors: ['s3'], secrets, incomplete: { failed: cut } })
  })

  test('stopped under load: a few wait once, then nobody does', async () => {
    const { origin, config, secrets } = await startParts()
    const subject = await startInProcess(config(s3.port, hasty))
    await expectStoring(subject, origin.asked, 'before')

    const first = await load(subject, { path: content('before'), at: { 150: () => s3.freeze() } })
    onTestFinished(() => s3.thaw())
    expect(problems(first)).toEqual([])
    const lasting = await load(subject, { path: content('before'), requests: outage() })
    expect(problems(lasting)).toEqual([])
    // Enough to tell; how many there are is the machine's business.
    expect(lasting.length).toBeGreaterThan(100)
    // Those under way when it fell silent; later one at a time finds out whether it is back.
    expect(slowerThan(first, FIRST_BYTE_MS * 0.9)).toBeLessThanOrEqual(MAX_SLOW)
    expect(slowerThan(first, FIRST_BYTE_MS * 0.9)).toBeGreaterThan(0)
    expect(slowerThan(lasting, FIRST_BYTE_MS * 0.9)).toBeLessThanOrEqual(4)

    s3.thaw()
    await expectStoring(subject, origin.asked, 'after')
    expect(problems(await load(subject, { path: content('before') }))).toEqual([])
    await expectSound(subject, { storeErrors: ['s3'], secrets })
  })

  test('answers later than anybody waits for it: the origin answers instead, and S3 is left alone', async () => {
    const { origin, config, secrets } = await startParts()
    const door = await startFaultProxy({ port: s3.port })
    onTestFinished(() => door.stop())
    const subject = await startInProcess(config(door.port, hasty))
    await expectStoring(subject, origin.asked, 'before')

    const outcomes = await load(subject, { path: content('before'), at: { 150: () => door.setMode({ kind: 'delay', ms: 4 * FIRST_BYTE_MS }) } })
    expect(problems(outcomes)).toEqual([])
    expect(slowerThan(outcomes, FIRST_BYTE_MS * 0.9)).toBeLessThanOrEqual(MAX_SLOW)
    const after = await load(subject, { path: mixture('slow') })
    expect(problems(after)).toEqual([])
    // While everybody else is answered, one at a time may find out whether it is quick again.
    expect(slowerThan(after, FIRST_BYTE_MS * 0.9)).toBeLessThanOrEqual(4)

    await door.setMode({ kind: 'pass' })
    await expectStoring(subject, origin.asked, 'after')
    await expectSound(subject, { storeErrors: ['s3'], secrets })
  })

  test.each(['silent', 'cut'] as const)('%s in the middle of a body: its clients are cut, nothing short passes for whole, and others are answered', async (ending) => {
    const { config, secrets } = await startParts()
    const relay = await startRelay(s3.port)
    const subject = await startInProcess(config(relay.port))
    const large = `/6m/${ending}`
    await untilFetchedAndStored(subject, large)
    const full = await ask(subject, large)
    expect(problems([full])).toEqual([])

    relay.setMode({ ending, bytes: 1024 * 1024 })
    const silentMs = performance.now()
    const begun = new Set<number>()
    const waiting = Promise.all(
      Array.from({ length: CLIENTS }, async (_, i) => {
        const outcome = await ask(subject, large, { onData: () => void begun.add(i) })
        begun.add(i)
        return outcome
      })
    )
    await until(() => begun.size === CLIENTS)
    const others = await load(subject, { path: mixture(`${ending}-others`) })
    const broken = await waiting
    // One that came late to its first bytes was answered by the origin.
    const { cut = 0, right = 0 } = verdicts(broken)
    expect(cut + right).toBe(CLIENTS)
    expect(cut).toBeGreaterThan(0)
    for (const { status, length } of broken) {
      expect(status).toBe(200)
      expect(length).toBeGreaterThanOrEqual(BLOCK_BYTES)
    }
    if (ending === 'silent') {
      // Others were answered while these were waiting, and a silence of 5 s is the end.
      const firstCutMs = Math.min(...broken.map(({ endedMs }) => endedMs))
      expect(others.filter(({ endedMs }) => endedMs < firstCutMs).length).toBeGreaterThan(100)
      expect(Math.max(...broken.map(({ endedMs }) => endedMs)) - silentMs).toBeLessThan(50_000)
    }
    // Of the others, large ones that were stored before and read again may have met the same fate.
    const hurt = others.filter((outcome) => verdictOf(outcome) !== 'right')
    expect(problems(hurt.filter(({ path }) => contentOf(path).length <= BLOCK_BYTES))).toEqual([])
    expect(verdicts(hurt).wrong ?? 0).toBe(0)

    relay.setMode('pass')
    await until(async () => (await ask(subject, large)).cache === 'HIT')
    expect(problems([await ask(subject, large), ...(await load(subject, { path: mixture(`${ending}-after`), requests: 100 }))])).toEqual([])
    await expectSound(subject, { storeErrors: [], secrets, incomplete: { failed: cut + hurt.length } })
  })

  test.each([
    ['an unknown key', () => ({ accessKeyId: secretName('KEY') })],
    ['a wrong secret', () => ({ secretAccessKey: secretName('secret') })]
  ])('refuses %s: everything comes from the origin, and nobody hears why', async (_, wrong) => {
    const { config, secrets } = await startParts()
    const credentials = wrong()
    const relay = await startRelay(s3.port)
    const subject = await startInProcess(config(relay.port, credentials))
    const outcomes = await load(subject, { path: mixture('refused') })
    expect(problems(outcomes)).toEqual([])
    expect(cachesOf(outcomes)).not.toContain('HIT')
    const words = [...secrets, ...Object.values(credentials)]
    const shown = outcomes.map(({ headers }) => JSON.stringify(headers)).join('\n')
    expect(words.filter((word) => shown.includes(word))).toEqual([])
    expect(shown).not.toMatch(/amz|rgw|xml|Signature|AccessKey|AccessDenied|s3/i)
    await expectSound(subject, { storeErrors: ['s3'], secrets: words })
    expect(subject.logText()).not.toMatch(/amz|xml|Signature|AccessDenied|AWS4/i)
    expect(subject.logText()).toContain('the object storage refused the credentials')
  })

  // The last one: it does not come back.
  test('killed under load: who comes after that is answered by the origin', async () => {
    const { origin, config, secrets } = await startParts()
    const subject = await startInProcess(config(s3.port))
    await expectStoring(subject, origin.asked, 'before')
    const { cut } = await loadAcross(
      subject,
      (i) => (i % 2 === 0 ? content('before')(i / 2) : mixture('killed')(i)),
      () => s3.kill()
    )
    const after = await load(subject, { path: (i) => (i % 2 === 0 ? content('before')(i / 2) : mixture('after')(i)) })
    expect(problems(after)).toEqual([])
    expect(cachesOf(after)).not.toContain('HIT')
    await expectSound(subject, { storeErrors: ['s3'], secrets, incomplete: { failed: cut } })
  })
})
