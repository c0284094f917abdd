import { type Handler, type HeaderMap, ProxyError, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import type { FakeClock } from '@proxy/testing'
import { type CacheControl, parseCacheControl } from '../src/cache-control.ts'
import { headers, PushSource } from './support.ts'

/** How the origin answers for one path. */
export interface Rules {
  readonly cacheControl: string | undefined
  readonly vary: readonly string[]
  readonly validator: 'strong' | 'weak' | 'date' | 'none'
  readonly size: number
  readonly declared: boolean
  readonly ranges: boolean
  readonly setCookie: boolean
  /** Seconds, of a cache nearer to the origin. */
  readonly age: number | undefined
}

/** What a request that waits for the origin is to get. `late`: made now, and long under way. `mismatch`: a 304 that speaks of something else. */
export type How = 'normal' | 'late' | 'unreachable' | 'unavailable' | 'missing' | 'mismatch'

/** Of everything that happens, the order. */
export class Sequence {
  private last = 0
  next(): number {
    return ++this.last
  }
}

/** One answer of the origin, all that is to be known of it. */
export interface Sent {
  readonly id: number
  /** When its header arrived. */
  arrivedSeq: number
  readonly path: string
  /** Who has made the cache ask. */
  readonly client: number
  readonly authorized: boolean
  readonly askedNoStore: boolean
  readonly status: number
  /** A 304 that speaks of something else. */
  readonly mismatch: boolean
  readonly version: number
  readonly rules: Rules
  readonly control: CacheControl | undefined
  /** What the request had in the fields that Vary names. */
  readonly selected: HeaderMap
  readonly wallMs: number
  /** The whole representation, also where a part of it was sent. */
  readonly bytes: Buffer
  readonly source: PushSource | undefined
  readonly toSend: Buffer
  at: number
  over: boolean
  brokenOff: boolean
}

export interface Failure {
  readonly seq: number
  readonly path: string
  readonly wallMs: number
  readonly monotonicMs: number
  readonly status: number | undefined
}

/** Last-Modified of version 0: what says nothing of its lifetime is fresh for a tenth of the time since. */
export const MODIFIED_MS = 1_700_000_000_000 - 1_000_000

/** An origin whose every body says what it is, and which answers when, and as, the test says. */
export class ModelOrigin {
  readonly sent: Sent[] = []
  readonly failures: Failure[] = []
  readonly waiting: { readonly path: string; readonly release: (how: How) => void }[] = []
  /** Answers that were made and have not arrived. */
  readonly underway: (() => void)[] = []
  private readonly clock: FakeClock
  private readonly sequence: Sequence
  private readonly rules = new Map<string, Rules>()
  private readonly versions = new Map<string, number>()

  constructor(clock: FakeClock, sequence: Sequence, rules: ReadonlyMap<string, Rules>) {
    this.clock = clock
    this.sequence = sequence
    for (const [path, each] of rules) this.rules.set(path, each)
  }

  version(path: string): number {
    return this.versions.get(path) ?? 0
  }

  /** What is the same may be private from now on. */
  say(path: string, cacheControl: string): void {
    this.rules.set(path, { ...(this.rules.get(path) as Rules), cacheControl })
  }

  change(path: string, rules?: Rules): void {
    this.versions.set(path, this.version(path) + 1)
    if (rules !== undefined) this.rules.set(path, rules)
  }

  readonly handler: Handler = async (request) => {
    const path = request.target
    const how = await new Promise<How>((resolve) => this.waiting.push({ path, release: resolve }))
    if (how === 'unreachable') {
      this.failures.push({ seq: this.sequence.next(), path, wallMs: this.clock.wallMs(), monotonicMs: this.clock.monotonicMs(), status: undefined })
      throw new ProxyError('no answer', { code: 'UPSTREAM_FAILED', status: 502, source: 'upstream', proxyStatus: 'connection_refused' })
    }
    if (request.method === 'POST') return this.answerUnsafe(request, how)
    const answer = this.answer(request, how === 'late' ? 'normal' : how)
    if (how === 'late') {
      const sent = this.sent.at(-1) as Sent
      await new Promise<void>((resolve) => this.underway.push(resolve))
      sent.arrivedSeq = this.sequence.next()
    }
    return answer
  }

  /** The next piece of an answer's body; its end when there is no more. */
  push(sent: Sent | undefined, size: number): void {
    if (sent?.source === undefined || sent.over) return
    const { source, toSend } = sent
    if (source.aborted || source.discarded) sent.over = true
    else if (sent.at < toSend.length) {
      const chunk = toSend.subarray(sent.at, sent.at + size)
      sent.at += size
      source.push(chunk)
    } else {
      sent.over = true
      source.end()
    }
  }

  breakOff(sent: Sent | undefined): void {
    if (sent?.source === undefined || sent.over) return
    sent.over = sent.brokenOff = true
    sent.source.fail()
  }

  /** Ends as if it were whole. What was declared shows that it is not. */
  cut(sent: Sent | undefined): void {
    if (sent?.source?.length === undefined || sent.over || sent.at >= sent.toSend.length) return
    sent.over = sent.brokenOff = true
    sent.source.end()
  }

  private answerUnsafe(request: ProxyRequest, how: How): ProxyResponse {
    if (how === 'unavailable' || how === 'missing') return { status: how === 'missing' ? 404 : 503, headers: headers(), body: null }
    const named = request.headers['x-changes']
    const versions: string[] = []
    for (const path of typeof named === 'string' ? [request.target, named] : [request.target]) {
      this.change(path)
      versions.push(`${path} ${this.version(path)}`)
    }
    return { status: 200, headers: headers({ 'x-versions': versions, ...(typeof named === 'string' && { location: named }) }), body: null }
  }

  private answer(request: ProxyRequest, how: How): ProxyResponse {
    const path = request.target
    const rules = this.rules.get(path) as Rules
    const version = this.version(path)
    const seq = this.sequence.next()
    const wallMs = this.clock.wallMs()
    if (how === 'unavailable') this.failures.push({ seq, path, wallMs: this.clock.wallMs(), monotonicMs: this.clock.monotonicMs(), status: 503 })
    const selected = headers()
    for (const name of rules.vary) selected[name] = request.headers[name]
    const fields = headers({ date: new Date(wallMs).toUTCString() })
    if (rules.cacheControl !== undefined) fields['cache-control'] = rules.cacheControl
    if (rules.vary.length > 0) fields.vary = rules.vary.join(', ')
    if (rules.age !== undefined) fields.age = String(rules.age)
    if (rules.setCookie) fields['set-cookie'] = `client=${String(request.headers['x-client'])}`
    if (rules.cacheControl?.includes('x-user')) fields['x-user'] = request.headers['x-client']
    const etag = `"${path}-${version}-${rules.vary.map((name) => String(selected[name])).join('-')}"`
    if (rules.validator === 'strong') fields.etag = etag
    if (rules.validator === 'weak') fields.etag = `W/${etag}`
    if (rules.validator === 'date') fields['last-modified'] = new Date(MODIFIED_MS + version * 1000).toUTCString()

    const known = rules.validator === 'date' ? request.headers['if-modified-since'] === fields['last-modified'] : fields.etag !== undefined && request.headers['if-none-match'] === fields.etag
    const confirms = (how === 'normal' && known) || (how === 'mismatch' && request.headers['if-none-match'] !== undefined)
    const status = confirms ? 304 : how === 'unavailable' ? 503 : how === 'missing' ? 404 : 200
    const id = this.sent.length
    // Parts with one strong tag may be put together: they are of the same bytes, whoever asks.
    const text = rules.ranges && rules.validator === 'strong' ? `<${path} version ${version} ${etag}>` : `<${id} ${path} version ${version} ${etag} for ${String(request.headers['x-client'])}>`
    const bytes = Buffer.alloc(status === 304 ? 0 : rules.size, text)
    const ifRange = request.headers['if-range']
    const sameRange = ifRange === undefined || (rules.validator === 'strong' && ifRange === etag)
    const [, from, to] = (rules.ranges && status === 200 && sameRange && /^bytes=(\d+)-(\d*)$/.exec(String(request.headers.range))) || []
    const isPart = from !== undefined && Number(from) < bytes.length && request.method === 'GET'
    const end = to === '' ? bytes.length - 1 : Math.min(Number(to), bytes.length - 1)
    const toSend = isPart ? bytes.subarray(Number(from), end + 1) : bytes
    if (isPart) fields['content-range'] = `bytes ${from}-${end}/${bytes.length}`
    if (rules.declared && status !== 304) fields['content-length'] = String(toSend.length)
    const bodiless = status === 304 || request.method === 'HEAD'
    // What has no body may renew what has one: both are then to be known.
    fields[bodiless ? 'x-confirmed' : 'x-answer'] = String(id)
    if (how === 'mismatch' && confirms) fields.etag = '"of something else"'
    const source = bodiless ? undefined : new PushSource(rules.declared ? toSend.length : undefined)
    this.sent.push({
      id,
      arrivedSeq: seq,
      path,
      client: Number(request.headers['x-client']),
      authorized: request.headers.authorization !== undefined,
      askedNoStore: parseCacheControl(request.headers['cache-control'])?.noStore === true,
      status,
      mismatch: how === 'mismatch' && confirms,
      version,
      rules,
      control: parseCacheControl(rules.cacheControl),
      selected,
      wallMs,
      bytes,
      source,
      toSend,
      at: 0,
      over: bodiless,
      brokenOff: false
    })
    return { status: isPart ? 206 : status, headers: fields, body: source ?? null }
  }
}
