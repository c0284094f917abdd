import { createRequest, type Handler } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { cache, MemoryStore } from '../src/index.ts'
import type { CacheWriter } from '../src/store.ts'
import { withoutReadFrom } from './shared-body-setup.ts'
import { digest, headers, PushSource, randomFrom, settle, TestReader, until, WatchedStore } from './support.ts'

const runs = Number(process.env.CACHE_FUZZ_RUNS ?? 60)
const firstSeed = Number(process.env.CACHE_FUZZ_SEED ?? (Date.now() % 1_000_000) + 1)

test(`clients and origins in any order: whole bodies, no hanging, nothing left behind (seeds ${firstSeed} to ${firstSeed + runs - 1})`, async () => {
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    try {
      await anyOrder(seed)
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error })
    }
  }
}, 120_000)

/** One answer of the origin: its own bytes, so that two of them mixed would show. */
class OriginAnswer {
  readonly source: PushSource
  readonly bytes: Buffer
  readonly hash: string
  private at = 0
  done = false
  failed = false

  constructor(bytes: Buffer, declared: boolean) {
    this.bytes = bytes
    this.hash = digest(bytes)
    this.source = new PushSource(declared ? bytes.length : undefined)
  }
  get isOver(): boolean {
    return this.done || this.failed || this.source.aborted || this.source.discarded
  }
  push(size: number): void {
    if (this.isOver) return
    if (this.at < this.bytes.length) {
      this.source.push(this.bytes.subarray(this.at, this.at + size))
      this.at += size
    } else {
      this.done = true
      this.source.end()
    }
  }
  fail(): void {
    if (this.isOver) return
    this.failed = true
    this.source.fail()
  }
}

async function anyOrder(seed: number): Promise<void> {
  const random = randomFrom(seed)
  const pick = (n: number): number => Math.floor(random() * n)
  const chance = (p: number): boolean => random() < p

  const size = 1 + pick(chance(0.3) ? 5000 : 400_000)
  const declared = chance(0.5)
  const etag = [undefined, '"strong"', 'W/"weak"'][pick(3)]
  const kind = (['roomy', 'roomy', 'unreadable', 'refusing', 'stalling', 'failing commit'] as const)[pick(6)]
  const memory = new MemoryStore({ maxBytes: 8 << 20, maxEntryBytes: kind === 'refusing' ? 1 + pick(size + 2000) : 4 << 20 })
  const store = new WatchedStore(memory)
  const drains: (() => void)[] = []
  if (kind === 'unreadable') store.onPut = (writer) => withoutReadFrom(writer)
  if (kind === 'failing commit') {
    store.onPut = (writer) => ({
      ...withoutReadFrom(writer),
      commit: async () => {
        writer.abort()
        return false
      }
    })
  }
  if (kind === 'stalling') {
    store.onPut = (writer): CacheWriter => ({
      ...withoutReadFrom(writer),
      readFrom: (offset) => writer.readFrom?.(offset) ?? null,
      write: (chunk) => writer.write(chunk) && chance(0.5),
      drained: () => new Promise((resolve) => drains.push(resolve))
    })
  }

  const answers: OriginAnswer[] = []
  const waiting: (() => void)[] = []
  const next: Handler = async (request) => {
    if (request.method === 'POST') return { status: 200, headers: headers(), body: null }
    const answer = new OriginAnswer(sampleBytes(size, seed + answers.length), declared)
    answers.push(answer)
    await new Promise<void>((resolve) => waiting.push(resolve))
    const fields: Record<string, string> = { 'cache-control': 'max-age=60' }
    if (etag !== undefined) fields.etag = etag.startsWith('W/') ? etag : `"${seed}-${answers.indexOf(answer)}"`
    if (declared) fields['content-length'] = String(size)
    return { status: 200, headers: headers(fields), body: answer.source }
  }
  const middleware = cache({ store, clock: createFakeClock(), windowBytes: 1 + pick(100_000), finishBytes: pick(300_000), storeStallMs: 60_000 })
  const handler = middleware(next)

  const readers: TestReader[] = []
  const failures: unknown[] = []
  let opening = 0
  const connect = (): void => {
    opening++
    const slow = chance(0.5)
    const gone = chance(0.1)
    void handler(createRequest()).then(
      (answer) => {
        opening--
        const { body } = answer
        if (gone && body !== null && 'discard' in body) body.discard()
        else readers.push(new TestReader(body, { slow }))
      },
      (error: unknown) => {
        opening--
        failures.push(error)
      }
    )
  }

  let invalidations = 0
  connect()
  for (let step = 0; step < 150; step++) {
    const reader = readers[pick(readers.length)]
    const answer = answers[pick(answers.length)]
    const reading = reader?.state === 'reading'
    const action = pick(100)
    if (action < 12) connect()
    else if (action < 20) waiting.shift()?.()
    else if (action < 60 && answer !== undefined) {
      // Some chunks are under way already when the pause is asked for.
      for (let i = pick(6); i >= 0 && (!answer.source.paused || chance(0.1)); i--) answer.push(1 + pick(30_000))
    } else if (action < 75 && reading && reader.isPaused) reader.take()
    else if (action < 80 && reading) reader.hurry()
    else if (action < 85 && reading) reader.slow = true
    else if (action < 88 && reading) reader.leave()
    else if (action === 88) answer?.fail()
    else if (action === 89) {
      invalidations++
      await handler(createRequest({ method: 'POST' }))
    } else if (action < 95) drains.shift()?.()
    else await settle(1)
  }

  // Everybody goes on to the end.
  await until(
    () => {
      while (waiting.length > 0) waiting.shift()?.()
      while (drains.length > 0) drains.shift()?.()
      for (const answer of answers) for (let i = 0; i < 20 && !answer.isOver && !answer.source.paused; i++) answer.push(20_000)
      for (const reader of readers) if (reader.state === 'reading') reader.hurry()
      return opening === 0 && readers.every(({ state }) => state !== 'reading') && answers.every(({ isOver }) => isOver)
    },
    `${kind}: ${readers.map(({ state }) => state).join()}; ${opening} opening; ${answers.map((answer) => `${answer.isOver} ${answer.source.paused}`).join()}; the end`
  )
  await middleware.drain()

  const hashes = new Set(answers.map(({ hash }) => hash))
  for (const reader of readers) {
    if (reader.state === 'ended') expect(hashes.has(reader.hash), `a body of ${reader.bytes} bytes that no origin sent`).toBe(true)
    // A client is cut only when the origin broke off, or when what it still needed is kept nowhere.
    const excused =
      answers.some(({ failed }) => failed) || kind === 'refusing' || (kind === 'failing commit' && reader.failure?.code === 'CACHE_READER_LOST') || (kind === 'unreadable' && invalidations > 0)
    if (reader.state === 'failed') expect(excused, `${kind}: ${reader.failure?.code}`).toBe(true)
  }
  expect(failures).toEqual([])
  expect(middleware.stats().fills).toBe(0)
  expect([store.leaked, store.twice]).toEqual([0, []])
  await store.close()
  expect(memory.stats().bytes).toBe(0)
}
