import { createRequest, isProxyError, type ProxyResponse } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import fc from 'fast-check'
import CachePolicy from 'http-cache-semantics'
import { expect, test } from 'vitest'
import { type CacheControl, parseCacheControl } from '../src/cache-control.ts'
import { currentAgeMs, initialAgeMs } from '../src/freshness.ts'
import { type CacheMeta, cache, MemoryStore } from '../src/index.ts'
import { storability } from '../src/storability.ts'
import { ARRIVAL_MS, type Case, cases, type Fields } from './differential-cases.ts'
import { directivesOf, settlingRewriting } from './differential-reading.ts'
import { type Disagreement, type LifetimeDisagreement, type ReuseDisagreement, rulings, type StoringDisagreement } from './differential-rulings.ts'
import { headers, standardPolicy } from './support.ts'

/** In these, every ruling has to settle something. */
const regressionSeeds = [1, 2, 3]
const runsEach = 4000
const runs = Number(process.env.CACHE_DIFFERENTIAL_RUNS ?? 4000)
const seed = Number(process.env.CACHE_DIFFERENTIAL_SEED ?? (Date.now() % 1_000_000) + 1)

const settled = new Map<string, number>()

async function compare(seedOfRun: number, numRuns: number): Promise<void> {
  await fc.assert(fc.asyncProperty(cases, differences), { seed: seedOfRun, numRuns })
}

test(`what http-cache-semantics says otherwise has one ruling each (seeds ${regressionSeeds.join()})`, async () => {
  settled.clear()
  for (const each of regressionSeeds) await compare(each, runsEach)
  // A ruling that nothing needs any more goes.
  expect(rulings.filter(({ name }) => !settled.has(name)).map(({ name }) => name)).toEqual([])
}, 120_000)

test(`the same for what has not been seen before (seed ${seed})`, () => compare(seed, runs), 600_000)

test('rulings have names of their own', () => expect(new Set(rulings.map(({ name }) => name)).size).toBe(rulings.length))

function settle(disagreement: Disagreement): void {
  const fitting = rulings.filter(({ applies }) => applies(disagreement)).map(({ name }) => name)
  if (fitting.length !== 1) {
    const { aspect, ours, theirs } = disagreement
    throw new Error(`${aspect}: ${String(ours)} here, ${String(theirs)} there; ${fitting.length === 0 ? 'no ruling' : `rulings: ${fitting.join('; ')}`}\n${JSON.stringify(disagreement, undefined, 1)}`)
  }
  const [name = ''] = fitting
  settled.set(name, (settled.get(name) ?? 0) + 1)
}

async function differences(of: Case): Promise<void> {
  const control = parseCacheControl(of.response['cache-control'])
  const requested = parseCacheControl(of.request['cache-control'])
  const asked = parseCacheControl(of.again.headers['cache-control'])
  readings(of.response['cache-control'], control, 'response')
  readings(of.request['cache-control'], requested, 'request')
  readings(of.again.headers['cache-control'], asked, 'request')

  const fields = headers(of.response)
  const response = { status: of.status, headers: fields, responseTime: ARRIVAL_MS, initialAgeMs: initialAgeMs(fields, of.delayMs, ARRIVAL_MS) }
  const decision = storability({ ...response, method: of.method, authorized: of.request.authorization !== undefined, requestNoStore: requested?.noStore === true }, standardPolicy)
  Oracle.wallMs = ARRIVAL_MS
  const request = { method: of.method, headers: asNode(of.request, requested) }
  const oracle = new Oracle(request, { status: of.status, headers: asNode(of.response, control) })

  const ours = decision.store ? 'stored' : decision.reason
  const theirs = refusal(oracle, of)
  expect(oracle.storable()).toBe(theirs === 'stored')
  if ((ours === 'stored') !== (theirs === 'stored')) settle({ aspect: 'storing', of, control, ours, theirs })

  if (decision.store && theirs === 'stored') {
    const lifetimeMs = oracle.maxAge() * 1000
    if (Math.abs(decision.lifetimeMs - lifetimeMs) > 0.01) settle({ aspect: 'lifetime', of, control, ours: decision.lifetimeMs, theirs: lifetimeMs, from: lifetimeSource(oracle, of) })
  }
  const ageMs = oracle.age() * 1000
  if (response.initialAgeMs !== ageMs) settle({ aspect: 'age', of, ours: response.initialAgeMs, theirs: ageMs })

  const again = await secondAnswer(of, decision.store ? decision.lifetimeMs : 0, response.initialAgeMs, asked, control)
  expect(again.stored, 'what the engine stores is what storability says').toBe(decision.store)
  if (!decision.store) {
    expect(again.how).toBe('asks the origin')
    return
  }
  const ageThenMs = currentAgeMs(response as unknown as CacheMeta, again.wallMs)
  if (again.age !== undefined) expect(again.age, 'Age').toBe(Math.floor(ageThenMs / 1000))
  const judge = new Settled(request, { status: of.status, headers: asNode(of.response, control) }, { lifetimeMs: decision.lifetimeMs, ageMs: ageThenMs })
  const asNow = { method: of.again.method, headers: asNode(of.again.headers, asked) }
  const how = reuse(judge, asNow, of, control)
  const reused = how === 'fresh' || how === 'max-stale' || how === 'stale-while-revalidate'
  expect(judge.evaluateRequest(asNow).response !== undefined).toBe(reused)
  const staleMs = ageThenMs - decision.lifetimeMs
  if (reused !== (again.how !== 'asks the origin')) settle({ aspect: 'reuse', of, control, asked, ours: again.how, theirs: how, staleMs, dropped: again.wallMs >= again.keepUntil })
}

/** The other side, at a time of ours, with one reading of Cache-Control. */
class Oracle extends CachePolicy {
  static wallMs = ARRIVAL_MS
  override now(): number {
    return Oracle.wallMs
  }
}

/** The same with one lifetime and one age. */
class Settled extends Oracle {
  private readonly known: { readonly lifetimeMs: number; readonly ageMs: number }

  constructor(request: ConstructorParameters<typeof CachePolicy>[0], response: ConstructorParameters<typeof CachePolicy>[1], known: Settled['known']) {
    super(request, response)
    this.known = known
  }
  override maxAge(): number {
    return this.known.lifetimeMs / 1000
  }
  override age(): number {
    return this.known.ageMs / 1000
  }
}

/** Fields as node:http gives them to http-cache-semantics: lines joined where that is allowed, else the first. Cache-Control as we have read it. */
function asNode(fields: Fields, control: CacheControl | undefined): Record<string, string> {
  const result: Record<string, string> = {}
  for (const [name, value] of Object.entries(fields)) result[name] = typeof value === 'string' ? value : (value[0] ?? '')
  if (control !== undefined) result['cache-control'] = textOf(control, /immutable/i.test(String(fields['cache-control'])))
  return result
}

function textOf(control: CacheControl, immutable: boolean): string {
  const directives: string[] = []
  for (const [name, read] of timed) {
    const value = read(control)
    if (value !== undefined) directives.push(value === Number.POSITIVE_INFINITY ? name : `${name}=${value}`)
  }
  for (const [name, read] of flags) if (read(control)) directives.push(name)
  if (immutable) directives.push('immutable')
  return directives.join(', ')
}

const timed: readonly [string, (control: CacheControl) => number | undefined][] = [
  ['max-age', (control) => control.maxAge],
  ['s-maxage', (control) => control.sMaxage],
  ['min-fresh', (control) => control.minFresh],
  ['max-stale', (control) => control.maxStale],
  ['stale-while-revalidate', (control) => control.staleWhileRevalidate]
]
const flags: readonly [string, (control: CacheControl) => boolean][] = [
  ['no-store', (control) => control.noStore],
  ['no-cache', (control) => control.noCache],
  ['private', (control) => control.private],
  ['public', (control) => control.public],
  ['must-revalidate', (control) => control.mustRevalidate],
  ['proxy-revalidate', (control) => control.proxyRevalidate]
]
const ofResponses: ReadonlySet<string> = new Set(['max-age', 's-maxage', 'stale-while-revalidate', ...flags.map(([name]) => name)])
const ofRequests: ReadonlySet<string> = new Set(['max-age', 'min-fresh', 'max-stale', 'no-store', 'no-cache'])

function readings(value: string | string[] | undefined, control: CacheControl | undefined, side: 'request' | 'response'): void {
  if (value === undefined || control === undefined) return
  const text = typeof value === 'string' ? value : value.join(', ')
  const isReadable = directivesOf(text) !== undefined
  if (!isReadable) expect([control.noStore, control.noCache, control.mustUnderstand], `unreadable: ${text}`).toEqual([true, true, false])
  const looked = side === 'request' ? ofRequests : ofResponses
  for (const [name, read] of [...timed, ...flags]) {
    if (!looked.has(name)) continue
    const ours = read(control) ?? absent(name)
    const theirs = theirReading(text, name, side)
    if (ours === theirs) continue
    const settledBy = isReadable ? settlingRewriting(text, (rewritten) => theirReading(rewritten, name, side) === ours) : 'unreadable'
    settle({ aspect: 'reading', directive: name, ours, theirs, settledBy })
  }
}

/** stale-while-revalidate=0 says what its absence says. */
function absent(name: string): number | false {
  return name === 'stale-while-revalidate' ? 0 : false
}

/** What http-cache-semantics makes of a directive where it uses it. */
function theirReading(text: string, name: string, side: 'request' | 'response'): number | boolean {
  const fields = { 'cache-control': text }
  const parsed =
    side === 'request'
      ? new CachePolicy({ method: 'GET', headers: fields }, { status: 200, headers: {} })._reqcc
      : new CachePolicy({ method: 'GET', headers: {} }, { status: 200, headers: fields })._rescc
  const value = parsed[name]
  if (flags.some(([flag]) => flag === name)) return Boolean(value)
  if (name === 'max-stale') {
    if (value === undefined) return false
    // Compared with a number as it is: what is none is never larger.
    return value === true ? Number.POSITIVE_INFINITY : Number.isNaN(Number(value)) ? 0 : Number(value)
  }
  if (!value) return absent(name)
  const seconds = Number.parseInt(String(value), 10)
  return Number.isFinite(seconds) ? seconds : 0
}

const theirStatuses: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501])
const theirHeuristicStatuses: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])

/** Why http-cache-semantics does not store it: the first of its reasons. */
function refusal({ _reqcc: asked, _rescc: said }: CachePolicy, { method, request, response, status }: Case): StoringDisagreement['theirs'] {
  if (asked['no-store']) return 'request-no-store'
  const explicit = said['s-maxage'] || said['max-age'] || response.expires?.length
  if (method !== 'GET' && method !== 'HEAD' && !(method === 'POST' && explicit)) return 'method'
  if (!theirStatuses.has(status)) return 'status'
  if (said['no-store']) return 'no-store'
  if (said.private) return 'private'
  if (request.authorization && !said['must-revalidate'] && !said.public && !said['s-maxage']) return 'authorization'
  return explicit || said.public || theirHeuristicStatuses.has(status) ? 'stored' : 'no freshness'
}

/** Where http-cache-semantics has its lifetime from. */
function lifetimeSource({ _rescc: said }: CachePolicy, { response }: Case): LifetimeDisagreement['from'] {
  if (said['no-cache']) return 'no-cache'
  if (response['set-cookie'] && !said.public && !said.immutable) return 'set-cookie'
  if (said['proxy-revalidate']) return 'proxy-revalidate'
  if (said['s-maxage']) return 's-maxage'
  if (said['max-age']) return 'max-age'
  if (response.expires?.length) return 'expires'
  if (response['last-modified'] && Number.isFinite(Date.parse(String(response['last-modified'])))) return 'last-modified'
  return said.immutable ? 'immutable' : 'nothing'
}

/** Why http-cache-semantics answers the second request from what is stored, or does not: the first of its reasons. */
function reuse(oracle: CachePolicy, now: { readonly method: string; readonly headers: Record<string, string> }, of: Case, control: CacheControl | undefined): ReuseDisagreement['theirs'] {
  const asked = parseCacheControl(now.headers['cache-control'])
  const [ageSeconds, lifetimeSeconds] = [oracle.age(), oracle.maxAge()]
  if (control?.mustRevalidate) return 'must-revalidate'
  if (now.method !== of.method) return 'method'
  for (const name of String(of.response.vary ?? '')
    .toLowerCase()
    .split(/\s*,\s*/))
    if (now.headers[name] !== of.request[name]) return 'vary'
  if (asked?.noCache || /no-cache/.test(now.headers.pragma ?? '')) return 'no-cache'
  if (asked?.maxAge !== undefined && ageSeconds > asked.maxAge) return 'max-age'
  if (asked?.minFresh !== undefined && lifetimeSeconds - ageSeconds < asked.minFresh) return 'min-fresh'
  if (lifetimeSeconds > ageSeconds) return 'fresh'
  if (asked?.maxStale !== undefined && asked.maxStale > ageSeconds - lifetimeSeconds) return 'max-stale'
  return (control?.staleWhileRevalidate ?? 0) > 0 && lifetimeSeconds + (control?.staleWhileRevalidate ?? 0) > ageSeconds ? 'stale-while-revalidate' : 'stale'
}

interface Second {
  readonly stored: boolean
  readonly how: ReuseDisagreement['ours']
  readonly age: number | undefined
  readonly wallMs: number
  readonly keepUntil: number
}

/** Asks the engine twice. */
async function secondAnswer(of: Case, lifetimeMs: number, initialAge: number, asked: CacheControl | undefined, control: CacheControl | undefined): Promise<Second> {
  const clock = createFakeClock(ARRIVAL_MS - of.delayMs)
  const store = new MemoryStore()
  const put = store.put.bind(store)
  let keepUntil = 0
  store.put = (key, meta) => {
    if (meta.vary === undefined && keepUntil === 0) keepUntil = meta.keepUntil
    return put(key, meta)
  }
  let delayMs = of.delayMs
  const middleware = cache({ store, clock })
  const handler = middleware(async () => {
    clock.advance(delayMs)
    delayMs = 0
    return { status: of.status, headers: headers(of.response), body: of.status === 204 || of.status === 304 ? null : Buffer.from('body') }
  })
  const first = await handler(createRequest({ method: of.method, headers: headers(of.request) }))
  expect(clock.wallMs()).toBe(ARRIVAL_MS)
  await middleware.drain()

  const from = {
    answer: 0,
    expiry: lifetimeMs - initialAge,
    'stale-end': lifetimeMs - initialAge + (control?.staleWhileRevalidate ?? 0) * 1000,
    'max-age': (asked?.maxAge ?? 0) * 1000 - initialAge,
    'min-fresh': lifetimeMs - initialAge - (asked?.minFresh ?? 0) * 1000,
    'max-stale': lifetimeMs - initialAge + (Number.isFinite(asked?.maxStale ?? 0) ? (asked?.maxStale ?? 0) * 1000 : 0)
  }[of.when.from]
  clock.advance(Math.max(0, from + of.when.offsetMs))
  const wallMs = clock.wallMs()
  let answer: ProxyResponse | undefined
  try {
    answer = await handler(createRequest({ method: of.again.method, headers: headers(of.again.headers) }))
  } catch (error) {
    // Nothing usable was stored.
    if (!isProxyError(error) || error.code !== 'CACHE_ONLY_IF_CACHED') throw error
  }
  await middleware.drain()
  const status = String(answer?.headers['cache-status'])
  const isHit = status.startsWith('proxy; hit')
  const how = !isHit ? 'asks the origin' : status.includes('detail=stale-while-revalidate') ? 'stale-while-revalidate' : status.includes('detail=max-stale') ? 'max-stale' : 'fresh'
  return { stored: String(first.headers['cache-status']).includes('; stored'), how, age: isHit ? Number(answer?.headers.age) : undefined, wallMs, keepUntil }
}
