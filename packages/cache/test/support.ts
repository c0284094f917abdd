import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { Agent, createServer, type IncomingHttpHeaders, type IncomingMessage, type RequestListener, request as sendRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  type Body,
  type BodySink,
  type BodySource,
  type ByteRange,
  createHeaders,
  type Flow,
  type Handler,
  type HeaderMap,
  headersFromRaw,
  headersToRaw,
  ProxyError,
  type ProxyRequest,
  readAll,
  stripHopByHop,
  toSource
} from '@proxy/pipeline'
import { toNode } from '@proxy/pipeline/node'
import { createFakeClock, type FakeClock, type Origin, startOrigin } from '@proxy/testing'
import { type CacheEntry, type CacheMeta, type CacheMiddleware, type CacheOptions, type CacheStore, type CacheWriter, cache, type GetOptions, MemoryStore, type StoredMeta } from '../src/index.ts'
import type { StoragePolicy } from '../src/storability.ts'

/** What a cache goes by where nothing is configured. */
export const standardPolicy: StoragePolicy = {
  rules: [],
  targets: ['cdn-cache-control'],
  heuristic: { fraction: 0.1, maxMs: 86_400_000 },
  ignoresOrigin: false,
  minMs: 0,
  maxMs: Number.POSITIVE_INFINITY,
  storesCookies: false,
  contentTypes: undefined
}

export const digest = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')

export function headers(fields: Record<string, string | string[]> = {}): HeaderMap {
  const map = createHeaders()
  for (const [name, value] of Object.entries(fields)) map[name] = value
  return map
}

/** Numbers from a seed: mulberry32. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Resolves once `condition` holds, looking after each turn of the event loop. Fails when it never does. */
export async function until(condition: () => boolean, what = 'the condition', turns = 20_000): Promise<void> {
  for (let i = 0; i < turns; i++) {
    if (condition()) return
    await new Promise((resolve) => setImmediate(resolve))
  }
  throw new Error(`${what} did not come to hold`)
}

/** Lets everything that is ready run. */
export async function settle(turns = 5): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** A body that the test sends piece by piece. */
export class PushSource implements BodySource, Flow {
  readonly length: number | undefined
  private sink: BodySink | undefined
  private ended = false
  private backlog: Uint8Array[] = []
  private failure: ProxyError | undefined
  /** The reader has asked for a pause. */
  paused = false
  started = false
  discarded = false
  aborted = false

  constructor(length?: number) {
    this.length = length
  }

  start(sink: BodySink): Flow {
    if (this.started || this.discarded) throw new Error('started twice')
    this.started = true
    this.sink = sink
    for (const chunk of this.backlog.splice(0)) this.push(chunk)
    if (this.failure !== undefined) sink.error(this.failure)
    else if (this.ended) sink.end()
    return this
  }
  discard(): void {
    if (this.started || this.discarded) throw new Error('discarded twice, or after its start')
    this.discarded = true
  }
  resume(): void {
    this.paused = false
  }
  abort(): void {
    this.aborted = true
  }
  /** False when the reader wants a pause. */
  push(chunk: Uint8Array | string): boolean {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
    if (this.sink === undefined) {
      this.backlog.push(bytes)
      return true
    }
    if (this.aborted) return false
    // Before the call: a reader may resume from inside it.
    const more = this.sink.data(bytes)
    this.paused = !more
    return more
  }
  end(): void {
    this.ended = true
    if (this.sink !== undefined && !this.aborted) this.sink.end()
  }
  fail(error: ProxyError = new ProxyError('the origin broke off', { code: 'BODY_BROKEN', status: 502, source: 'upstream' })): void {
    this.failure = error
    if (this.sink !== undefined && !this.aborted) this.sink.error(error)
  }
}

/** A client that reads a body, as slowly as the test says. */
export class TestReader implements BodySink {
  readonly chunks: Uint8Array[] = []
  bytes = 0
  /** Takes a chunk only when told to. */
  slow: boolean
  state: 'reading' | 'ended' | 'failed' | 'left' = 'reading'
  failure: ProxyError | undefined
  private flow: Flow | undefined
  private paused = false

  constructor(body: Body, options: { slow?: boolean } = {}) {
    this.slow = options.slow ?? false
    this.flow = toSource(body).start(this)
  }
  data(chunk: Uint8Array): boolean {
    if (this.state !== 'reading') throw new Error(`a chunk after the reader had ${this.state}`)
    this.chunks.push(chunk)
    this.bytes += chunk.byteLength
    this.paused = this.slow
    return !this.slow
  }
  end(): void {
    if (this.state !== 'reading') throw new Error(`end after the reader had ${this.state}`)
    this.state = 'ended'
  }
  error(error: ProxyError): void {
    if (this.state !== 'reading') throw new Error(`an error after the reader had ${this.state}`)
    this.state = 'failed'
    this.failure = error
  }
  get isPaused(): boolean {
    return this.paused
  }
  /** Takes one more chunk. */
  take(): void {
    this.paused = false
    this.flow?.resume()
  }
  /** Takes all that comes from now on. */
  hurry(): void {
    this.slow = false
    this.take()
  }
  leave(): void {
    this.state = 'left'
    this.flow?.abort()
  }
  get hash(): string {
    return digest(Buffer.concat(this.chunks))
  }
  get text(): string {
    return Buffer.concat(this.chunks).toString('latin1')
  }
}

/** A store that notes what becomes of every entry it hands out, and that breaks where the test says. */
export class WatchedStore implements CacheStore {
  readonly inner: CacheStore
  private readonly open = new Set<object>()
  readonly twice: string[] = []
  readonly calls: string[] = []
  breakGet: ((key: string) => unknown) | undefined
  breakOpen: (() => unknown) | undefined
  breakTouch: (() => unknown) | undefined
  breakDelete: (() => unknown) | undefined
  onPut: ((writer: CacheWriter, key: string, meta: CacheMeta) => CacheWriter) | undefined

  constructor(inner: CacheStore = new MemoryStore()) {
    this.inner = inner
  }
  /** Entries that were neither opened nor discarded. */
  get leaked(): number {
    return this.open.size
  }
  async get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    this.calls.push('get')
    const failure = this.breakGet?.(key)
    if (failure !== undefined) throw failure
    const entry = await this.inner.get(key, want)
    if (entry === undefined) return undefined
    const token = {}
    this.open.add(token)
    const used = (how: string): void => {
      if (!this.open.delete(token)) this.twice.push(`${how} ${key}`)
    }
    return {
      version: entry.version,
      meta: entry.meta,
      open: async (range?: ByteRange) => {
        used('open')
        const broken = this.breakOpen?.()
        if (broken !== undefined) {
          entry.discard()
          throw broken
        }
        return entry.open(range)
      },
      discard: () => {
        used('discard')
        entry.discard()
      }
    }
  }
  put(key: string, meta: CacheMeta): CacheWriter {
    this.calls.push('put')
    const writer = this.inner.put(key, meta)
    return this.onPut?.(writer, key, meta) ?? writer
  }
  async touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    this.calls.push('touch')
    const failure = this.breakTouch?.()
    if (failure !== undefined) throw failure
    return this.inner.touch(key, version, meta)
  }
  async delete(key: string, version?: string): Promise<boolean> {
    this.calls.push('delete')
    const failure = this.breakDelete?.()
    if (failure !== undefined) throw failure
    return this.inner.delete(key, version)
  }
  sweep(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number> {
    return this.inner.sweep?.(matches, keep) ?? Promise.resolve(0)
  }
  close(): Promise<void> {
    return this.inner.close()
  }
}

const agents = new Set<Agent>()

/** The least of an upstream: one request over node:http, its answer streamed. A stand-in for a proxy's real last handler. */
export function httpNext(originUrl: string): Handler {
  const { hostname, port } = new URL(originUrl)
  const agent = new Agent({ keepAlive: false })
  agents.add(agent)
  return async (request: ProxyRequest) => {
    const body = request.body === null ? undefined : await readAll(request.body, 1 << 20)
    const fields = createHeaders(request.headers)
    fields.host = request.authority
    return new Promise((resolve, reject) => {
      const fail = (cause: Error): void => reject(new ProxyError(cause.message, { code: 'UPSTREAM_FAILED', status: 502, source: 'upstream', proxyStatus: 'connection_refused', cause }))
      const outgoing = sendRequest({ host: hostname, port, method: request.method, path: request.target, headers: headersToRaw(fields), agent, signal: request.signal }, (incoming) => {
        resolve({ status: incoming.statusCode ?? 0, headers: stripHopByHop(headersFromRaw(incoming.rawHeaders)), body: request.method === 'HEAD' ? endEmpty(incoming) : incoming })
      })
      outgoing.on('error', fail)
      outgoing.end(body)
    })
  }
}

function endEmpty(incoming: IncomingMessage): null {
  incoming.resume()
  return null
}

export interface ClientAnswer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly cacheStatus: string
}

export interface ClientRequest {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string
}

/** One request on a connection of its own; rejects when the answer is cut. */
export function ask(port: number, path: string, options: ClientRequest = {}): Promise<ClientAnswer> {
  return new Promise((resolve, reject) => {
    const outgoing = sendRequest({ host: '127.0.0.1', port, path, method: options.method ?? 'GET', headers: { host: 'example.org', ...options.headers }, agent: false }, (incoming) => {
      const chunks: Buffer[] = []
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
      incoming.on('error', reject)
      incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks), cacheStatus: String(incoming.headers['cache-status'] ?? '') }))
    })
    outgoing.on('error', reject)
    outgoing.end(options.body)
  })
}

/** A request whose answer the test reads itself. Resolves at the header; nothing is read of the body before the test does. */
export async function openAnswer(port: number, path: string, options: ClientRequest = {}): Promise<IncomingMessage> {
  const outgoing = sendRequest({ host: '127.0.0.1', port, path, method: options.method ?? 'GET', headers: { host: 'example.org', ...options.headers }, agent: false })
  outgoing.end()
  const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage]
  return incoming
}

export interface Bench {
  readonly port: number
  readonly origin: Origin
  readonly clock: FakeClock
  readonly store: WatchedStore
  readonly middleware: CacheMiddleware
  readonly storeErrors: unknown[]
  /** Asks the proxy. */
  get(path: string, headers?: Record<string, string>): Promise<ClientAnswer>
  ask(path: string, options: ClientRequest): Promise<ClientAnswer>
  /** Ends everything, and checks that nothing was left behind. */
  close(): Promise<void>
}

/** client -> toNode(cache(…)(node:http client)) -> origin, all on real sockets. */
export async function startBench(listener: RequestListener, options: Partial<CacheOptions> & { wrap?: (next: Handler) => Handler } = {}): Promise<Bench> {
  const { wrap, store: given, ...rest } = options
  const origin = await startOrigin(listener)
  const clock = createFakeClock()
  const store = new WatchedStore(given)
  const storeErrors: unknown[] = []
  const middleware = cache({ store, clock, onStoreError: (error) => storeErrors.push(error), ...rest })
  const handler = middleware(httpNext(origin.url))
  const server = createServer(toNode(wrap === undefined ? handler : wrap(handler)))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    port,
    origin,
    clock,
    store,
    middleware,
    storeErrors,
    get: (path, fields) => ask(port, path, { headers: fields ?? {} }),
    ask: (path, request) => ask(port, path, request),
    async close() {
      server.close()
      server.closeAllConnections()
      await origin.close()
      await middleware.drain()
      const problems = [...store.twice]
      if (store.leaked > 0) problems.push(`${store.leaked} entries neither opened nor discarded`)
      if (middleware.stats().fills > 0) problems.push(`${middleware.stats().fills} fills still running`)
      await store.close()
      if (problems.length > 0) throw new Error(problems.join('; '))
    }
  }
}
