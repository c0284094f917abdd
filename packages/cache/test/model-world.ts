import { createRequest, type HeaderMap, isProxyError, type ProxyResponse } from '@proxy/pipeline'
import { createFakeClock, type FakeClock } from '@proxy/testing'
import { type CacheControl, parseCacheControl } from '../src/cache-control.ts'
import { type CacheMiddleware, cache, MemoryStore } from '../src/index.ts'
import { MODIFIED_MS, ModelOrigin, type Rules, type Sent, Sequence } from './model-origin.ts'
import { headers, randomFrom, settle, TestReader, until, WatchedStore } from './support.ts'
import { UnreliableStore } from './unreliable-store.ts'

export interface Setup {
  readonly seed: number
  readonly rules: readonly Rules[]
  readonly trouble: number
  readonly slowness: number
  readonly canFollow: boolean
  readonly maxBytes: number
  readonly windowBytes: number
  readonly finishBytes: number
  readonly whileRevalidateMs: number
  readonly ifErrorMs: number
  readonly ifUnreachableMs: number
  readonly connectErrorMs: number
}

export interface Question {
  readonly method: 'GET' | 'HEAD'
  readonly path: string
  readonly fields: Readonly<Record<string, string>>
  readonly slow: boolean
  readonly leaves: boolean
}

interface Client {
  readonly id: number
  readonly question: Question
  readonly control: CacheControl | undefined
  readonly startedSeq: number
  readonly abort: AbortController
  answer: ProxyResponse | undefined
  sent: Sent | undefined
  expected: Buffer | undefined
  reader: TestReader | undefined
  failure: unknown
}

interface Change {
  readonly path: string
  readonly version: number
  readonly answeredSeq: number
}

/** After a failure the cache leaves the origin alone for so long. */
const RETRY_MS = 1000

/** A cache between clients and an origin of which all is known: what the clients get is checked against that when they get it. */
export class World {
  readonly setup: Setup
  readonly clock: FakeClock = createFakeClock()
  readonly sequence = new Sequence()
  readonly origin: ModelOrigin
  readonly memory: MemoryStore
  readonly store: UnreliableStore
  readonly watched: WatchedStore
  readonly middleware: CacheMiddleware
  readonly clients: Client[] = []
  readonly problems: string[] = []
  private readonly handler: ReturnType<CacheMiddleware>
  private readonly changes: Change[] = []
  private readonly opened: { readonly answer: string; readonly seq: number; readonly wallMs: number; readonly monotonicMs: number }[] = []
  private readonly drains: Promise<void>[] = []
  private pending = 0

  constructor(setup: Setup) {
    this.setup = setup
    const { trouble, slowness, canFollow, maxBytes, windowBytes, finishBytes, whileRevalidateMs, ifErrorMs, ifUnreachableMs, connectErrorMs } = setup
    this.origin = new ModelOrigin(this.clock, this.sequence, new Map(setup.rules.map((rules, i) => [`/${i}`, rules])))
    this.memory = new MemoryStore({ maxBytes, maxEntryBytes: maxBytes })
    this.store = new UnreliableStore(this.memory, randomFrom(setup.seed), { trouble, slowness, canFollow })
    this.store.onOpen = (meta) => this.opened.push({ answer: String(meta.headers['x-answer']), seq: this.sequence.next(), wallMs: this.clock.wallMs(), monotonicMs: this.clock.monotonicMs() })
    this.watched = new WatchedStore(this.store)
    this.middleware = cache({
      store: this.watched,
      clock: this.clock,
      windowBytes,
      finishBytes,
      storeStallMs: 60_000,
      stale: { whileRevalidateMs, ifErrorMs, ifUnreachableMs },
      negative: { connectErrorMs }
    })
    this.handler = this.middleware(this.origin.handler)
  }

  ask(question: Question): void {
    const id = this.clients.length
    const fields = headers({ ...question.fields, 'x-client': String(id) })
    const client: Client = {
      id,
      question,
      control: parseCacheControl(question.fields['cache-control']),
      startedSeq: this.sequence.next(),
      abort: new AbortController(),
      answer: undefined,
      sent: undefined,
      expected: undefined,
      reader: undefined,
      failure: undefined
    }
    this.clients.push(client)
    this.pending++
    void this.handler(createRequest({ method: question.method, target: question.path, headers: fields, signal: client.abort.signal })).then(
      (answer) => {
        this.pending--
        this.check(client, answer)
        if (question.leaves && answer.body !== null && 'discard' in answer.body) answer.body.discard()
        else client.reader = new TestReader(answer.body, { slow: question.slow })
      },
      (error: unknown) => {
        this.pending--
        client.failure = error
        const { path } = question
        const excused = this.origin.failures.some((failure) => failure.path === path) || (isProxyError(error) && error.code === 'CACHE_ONLY_IF_CACHED' && client.control?.onlyIfCached === true)
        if (!excused) this.problem(client, `was refused: ${String(error)}`)
      }
    )
  }

  post(path: string, changes: string | undefined): void {
    this.pending++
    void this.handler(createRequest({ method: 'POST', target: path, headers: headers(changes === undefined ? {} : { 'x-changes': changes }) })).then(
      ({ headers: fields }) => {
        this.pending--
        const answeredSeq = this.sequence.next()
        for (const line of fields['x-versions'] ?? []) {
          const [changed = '', version] = line.split(' ')
          this.changes.push({ path: changed, version: Number(version), answeredSeq })
        }
      },
      () => {
        this.pending--
      }
    )
  }

  drain(): void {
    this.drains.push(this.middleware.drain())
  }

  private problem(client: Client, what: string): void {
    const { question, answer, sent } = client
    const about = sent === undefined ? '' : `; answer ${sent.id} of ${sent.path}, version ${sent.version}, ${sent.rules.cacheControl}, for ${sent.client}`
    this.problems.push(`client ${client.id} (${question.method} ${question.path} ${JSON.stringify(question.fields)}) ${what} [${answer?.status} ${String(answer?.headers['cache-status'])}${about}]`)
  }

  private check(client: Client, answer: ProxyResponse): void {
    client.answer = answer
    const { question } = client
    const fields = answer.headers
    const sent = this.named(fields['x-answer'])
    const confirmed = this.named(fields['x-confirmed'])
    client.sent = sent
    if (confirmed?.mismatch) this.problem(client, 'got what was confirmed by a 304 for something else')
    if (sent === undefined) {
      if ((answer.status === 304 || question.method === 'HEAD') && confirmed?.client === client.id) return
      // A failure that is remembered.
      if (answer.status === 502 && this.remembersFailure(client)) return
      this.problem(client, 'got an answer that no origin sent')
      return
    }
    if (sent.path !== question.path) this.problem(client, 'got the answer of another path')
    for (const name in sent.selected) if (sent.selected[name] !== question.fields[name]) this.problem(client, `got another variant: ${name}`)
    if (sent.client !== client.id) this.checkShared(client, sent, confirmed)
    this.checkChanges(client, sent)
    this.checkForm(client, sent, answer)
  }

  private named(value: string | string[] | undefined): Sent | undefined {
    return typeof value === 'string' ? this.origin.sent[Number(value)] : undefined
  }

  /** What was sent for one client, and may be given to another: with whose leave, and how old. */
  private checkShared(client: Client, sent: Sent, confirmed: Sent | undefined): void {
    const { question, control: asked, startedSeq } = client
    const fields = client.answer?.headers as HeaderMap
    for (const each of confirmed === undefined || confirmed.client === client.id ? [sent] : [sent, confirmed]) {
      const { control } = each
      // The cookie of what renews is given to nobody.
      const forOne = each === sent && (each.rules.setCookie || each.rules.vary.includes('*'))
      if (control?.private || control?.noStore || forOne) this.problem(client, 'got what was for another client')
      if (each === sent && each.authorized && !(control?.public || control?.sMaxage !== undefined || control?.mustRevalidate)) this.problem(client, 'got what another client was authorized for')
    }
    if (fields['x-user'] !== undefined && fields['x-user'] !== String(client.id)) this.problem(client, 'got a field of another client')
    if (fields['set-cookie'] !== undefined) this.problem(client, 'got a cookie of another client')
    if (sent.askedNoStore) this.problem(client, 'got what was asked for with no-store')

    const base = confirmed ?? sent
    // This client has waited for it.
    if (base.arrivedSeq > startedSeq) return
    const { wallMs: nowMs, monotonicMs } = this.decided(client, String(sent.id))
    const ageMs = Math.max(0, nowMs - base.wallMs) + (base.rules.age ?? 0) * 1000
    const failed = this.failedLately(question.path, client, monotonicMs)
    const lifetime = lifetimeOf(base, parseCacheControl(fields['cache-control']))
    const allowed = lifetime + this.allowance(client, sent, base.control ?? parseCacheControl(fields['cache-control']), failed)
    if (ageMs >= allowed && ageMs - lifetime > (asked?.maxStale ?? -1) * 1000) this.problem(client, `got what is ${ageMs} ms old, ${allowed} ms at most are allowed`)
    if (failed === undefined && asked?.noCache) this.problem(client, 'got a stored answer in spite of no-cache')
    if (failed === undefined && asked?.maxAge !== undefined && ageMs > asked.maxAge * 1000) this.problem(client, `got what is ${ageMs} ms old in spite of max-age`)
    if (failed === undefined && asked?.minFresh !== undefined && ageMs + asked.minFresh * 1000 > lifetime) this.problem(client, `got what is ${ageMs} ms old in spite of min-fresh`)
    if (!(Number(fields.age) >= Math.floor(ageMs / 1000))) this.problem(client, `was told an age of ${String(fields.age)}, it is ${ageMs} ms`)
  }

  /** When it was decided that a client gets what is stored: a store may take its time to bring the body. The earliest by the clock, as others may have opened it too. */
  private decided({ startedSeq }: Client, stored: string): { readonly wallMs: number; readonly monotonicMs: number } {
    let [wallMs, monotonicMs] = [this.clock.wallMs(), this.clock.monotonicMs()]
    for (const each of this.opened) {
      if (each.answer !== stored || each.seq < startedSeq) continue
      wallMs = Math.min(wallMs, each.wallMs)
      monotonicMs = Math.min(monotonicMs, each.monotonicMs)
    }
    return { wallMs, monotonicMs }
  }

  private remembersFailure(client: Client): boolean {
    const { wallMs: nowMs } = this.decided(client, 'undefined')
    return this.origin.failures.some((failure) => failure.path === client.question.path && failure.status === undefined && Math.max(0, nowMs - failure.wallMs) < this.setup.connectErrorMs)
  }

  /** How long beyond its lifetime it may be served to this client. Milliseconds. */
  private allowance({ control: asked }: Client, sent: Sent, control: CacheControl | undefined, failed: { readonly status: number | undefined } | undefined): number {
    const { whileRevalidateMs, ifErrorMs, ifUnreachableMs } = this.setup
    const said = control?.staleWhileRevalidate !== undefined || control?.staleIfError !== undefined
    if (control?.noCache || control?.mustRevalidate || control?.proxyRevalidate || (control?.sMaxage !== undefined && !said)) return 0
    const patient = asked === undefined || !(asked.noCache || asked.maxAge !== undefined || asked.minFresh !== undefined)
    const byRefresh = !patient ? 0 : control?.staleWhileRevalidate !== undefined ? control.staleWhileRevalidate * 1000 : control?.sMaxage !== undefined ? 0 : whileRevalidateMs
    const byDefault = sent.status >= 400 || control?.sMaxage !== undefined ? 0 : Math.max(ifErrorMs, failed?.status === undefined ? ifUnreachableMs : 0)
    const byFailure = failed === undefined ? 0 : control?.staleIfError !== undefined ? control.staleIfError * 1000 : byDefault
    return Math.max(byRefresh, byFailure)
  }

  /** A failure of the origin since the client began, or just before. One without any answer, where there are several. */
  private failedLately(path: string, client: Client, monotonicMs: number): { readonly status: number | undefined } | undefined {
    const lately = this.origin.failures.filter((failure) => failure.path === path && (failure.seq > client.startedSeq || monotonicMs - failure.monotonicMs < RETRY_MS))
    return lately.find(({ status }) => status === undefined) ?? lately[0]
  }

  private checkChanges(client: Client, sent: Sent): void {
    for (const { path, version, answeredSeq } of this.changes) {
      if (path !== sent.path || answeredSeq > client.startedSeq || sent.version >= version || this.isUnsure(path)) continue
      this.problem(client, `got version ${sent.version} after it had been changed to ${version}`)
    }
  }

  /** Something was not deleted that should have been, or was shown again. */
  private isUnsure(path: string): boolean {
    for (const key of this.store.unsure) if (key.split('\n', 1)[0]?.endsWith(path)) return true
    return false
  }

  private checkForm(client: Client, sent: Sent, answer: ProxyResponse): void {
    const { bytes } = sent
    if (client.question.method === 'HEAD' || answer.status === 304 || answer.status === 416) {
      if (answer.body !== null && client.question.method !== 'HEAD') this.problem(client, 'got a body with a status that has none')
      client.expected = Buffer.alloc(0)
      return
    }
    if (answer.status !== 206) {
      if (answer.status !== sent.status) this.problem(client, `got status ${answer.status} for ${sent.status}`)
      client.expected = bytes
      return
    }
    const [, from, to, length] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(String(answer.headers['content-range'])) ?? []
    const asked = /^bytes=(\d+)-(\d+)$/.exec(String(client.question.fields.range))
    if (Number(length) !== bytes.length || from !== asked?.[1] || Number(to) !== Math.min(Number(asked?.[2]), bytes.length - 1)) this.problem(client, `got ${String(answer.headers['content-range'])}`)
    client.expected = bytes.subarray(Number(from), Number(to) + 1)
  }

  /** Lets everybody go on to the end, and checks what must hold then. */
  async finish(): Promise<void> {
    const { clients, middleware, origin, store } = this
    const advance = (): boolean => {
      for (const { release } of origin.waiting.splice(0)) release('normal')
      for (const arrive of [...origin.underway.splice(0), ...store.held.splice(0)]) arrive()
      for (const sent of origin.sent) for (let i = 0; i < 20 && !sent.over && (sent.source?.paused === false || sent.source?.aborted); i++) origin.push(sent, 20_000)
      for (const { reader } of clients) if (reader?.state === 'reading') reader.hurry()
      return this.pending === 0 && clients.every(({ reader }) => reader?.state !== 'reading') && origin.waiting.length + origin.underway.length + store.held.length === 0
    }
    await until(advance, 'the end of all answers')
    let drained = false
    void Promise.all([...this.drains, middleware.drain()]).then(() => {
      drained = true
    })
    await until(() => advance() && drained, 'drain()')
    await settle(3)

    for (const client of clients) this.checkBody(client)
    if (middleware.stats().fills !== 0) this.problems.push(`${middleware.stats().fills} fills are left`)
    if (this.watched.leaked > 0) this.problems.push(`${this.watched.leaked} entries were neither opened nor discarded`)
    this.problems.push(...this.watched.twice)
    for (const { id, source, over } of origin.sent) if (source !== undefined && !over && !source.aborted && !source.discarded) this.problems.push(`the body of answer ${id} was left open`)
    if (this.memory.stats().bytes > this.setup.maxBytes) this.problems.push('the store holds more than it may')
    for (const key of store.keys) await this.memory.delete(key)
    const { bytes, entries } = this.memory.stats()
    if (bytes !== 0 || entries !== 0) this.problems.push(`the store, emptied, holds ${bytes} bytes in ${entries} entries`)
    await this.watched.close()
    if (this.problems.length > 0) throw new Error(this.problems.join('\n'))
  }

  private checkBody(client: Client): void {
    const { answer, expected, question, reader, sent } = client
    if (reader === undefined || expected === undefined) return
    const got = Buffer.concat(reader.chunks)
    // What is passed on as it is has its length beside it, which the client's side of the proxy minds.
    const isPassed = String(answer?.headers['cache-status']).includes('detail=')
    if (reader.state === 'ended' && !(isPassed && sent?.brokenOff) && !got.equals(expected) && question.method !== 'HEAD')
      this.problem(client, `got ${got.length} bytes as a whole, which are not the ${expected.length} that were sent`)
    if (!got.equals(expected.subarray(0, got.length)) && question.method !== 'HEAD') this.problem(client, 'got bytes of something else')
    if (sent?.brokenOff && reader.state === 'ended' && question.method !== 'HEAD' && answer?.body !== null && !isPassed && sent.at < sent.toSend.length)
      this.problem(client, 'got as a whole what was cut short')
    if (reader.state === 'failed') {
      const { trouble, canFollow, maxBytes } = this.setup
      const excused = sent?.brokenOff || trouble > 0 || (reader.failure?.code === 'CACHE_READER_LOST' && !canFollow) || maxBytes < 1_000_000
      if (!excused) this.problem(client, `was cut: ${reader.failure?.code}`)
    }
  }
}

/** How long the origin says that it is fresh. What says nothing of it may have renewed what did: `before`. Milliseconds. */
function lifetimeOf({ control: said, rules, version, wallMs }: Sent, before: CacheControl | undefined): number {
  const control = said ?? before
  if (control?.noCache) return 0
  const explicit = control?.sMaxage ?? control?.maxAge
  if (explicit !== undefined) return explicit * 1000
  return rules.validator === 'date' ? Math.min(86_400_000, Math.max(0, 0.1 * (Math.floor(wallMs / 1000) * 1000 - MODIFIED_MS - version * 1000))) : 0
}
