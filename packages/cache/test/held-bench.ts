import { type IncomingMessage, type ServerResponse, request as sendRequest } from 'node:http'
import { onTestFinished } from 'vitest'
import type { CacheOptions, MemoryStore, MemoryStoreStats } from '../src/index.ts'
import { type Bench, type ClientAnswer, type ClientRequest, openAnswer, startBench, until } from './support.ts'

/** Header fields of an answer. */
type Fields = Record<string, string | string[] | number>

/** A cache before an origin that answers when it is told to. */
export class HeldBench {
  readonly bench: Bench
  /** What the origin has been asked, in the order of arrival. */
  readonly asked: readonly { readonly request: IncomingMessage; readonly response: ServerResponse }[]
  private readonly arrived: () => number

  constructor(bench: Bench, asked: HeldBench['asked'], arrived: () => number) {
    this.bench = bench
    this.asked = asked
    this.arrived = arrived
  }

  originHas(count: number): Promise<void> {
    return until(() => this.asked.length === count, `${count} requests at the origin`)
  }

  /** And the first of them at the origin: what follows it then waits for that. */
  cacheHas(count: number): Promise<void> {
    return until(() => this.arrived() === count && this.asked.length > 0, `${count} requests at the cache`)
  }

  /** The origin's answer to its nth request. */
  answer(n: number, fields: Fields = { 'cache-control': 'max-age=60' }, status = 200): ServerResponse {
    const { response } = this.asked[n] as HeldBench['asked'][number]
    response.writeHead(status, fields)
    return response
  }

  get(path: string, headers?: Record<string, string>): Promise<ClientAnswer> {
    return this.bench.get(path, headers)
  }

  /** Resolves at the header. */
  open(path: string, options?: ClientRequest): Promise<IncomingMessage> {
    return openAnswer(this.bench.port, path, options)
  }

  /** `count` clients who ask for /a, once all are at the cache and the first of them at the origin. */
  async crowd(count: number): Promise<Promise<ClientAnswer>[]> {
    const [arrived, asked] = [this.arrived(), this.asked.length]
    const clients = Array.from({ length: count }, () => this.get('/a'))
    await until(() => this.arrived() === arrived + count && this.asked.length > asked, `${count} more requests at the cache`)
    return clients
  }

  /** Has `body` stored for /a: the origin's first answer, stale by now. */
  async staleEntry(body: Buffer | string): Promise<void> {
    const { bench } = this
    const first = this.get('/a')
    await this.originHas(1)
    this.answer(0, { 'cache-control': 'max-age=60', etag: '"v1"' }).end(body)
    await first
    await bench.middleware.drain()
    bench.clock.advance(61_000)
  }

  /** One more request for /a, which the origin answers with `x`. */
  async askedAnew(): Promise<ClientAnswer> {
    const { length } = this.asked
    const next = this.get('/a')
    await this.originHas(length + 1)
    this.answer(length).end('x')
    return next
  }

  /** A client who leaves when told. */
  leaver(path: string): { leave(): Promise<void> } {
    const outgoing = sendRequest({ host: '127.0.0.1', port: this.bench.port, path, headers: { host: 'example.org' }, agent: false })
    outgoing.on('error', () => {})
    outgoing.on('response', (incoming) => {
      incoming.on('error', () => {})
      incoming.resume()
    })
    outgoing.end()
    return {
      async leave() {
        const closed = new Promise((resolve) => outgoing.once('close', resolve))
        outgoing.destroy()
        await closed
      }
    }
  }

  /** Of the memory store behind the cache. */
  get stored(): MemoryStoreStats {
    return (this.bench.store.inner as MemoryStore).stats()
  }
}

/** Ends with the test, which fails when something was left behind. */
export async function startHeld(options: Partial<CacheOptions> = {}): Promise<HeldBench> {
  const asked: { request: IncomingMessage; response: ServerResponse }[] = []
  let arrived = 0
  const bench = await startBench((request, response) => asked.push({ request, response }), {
    wrap: (handler) => (request) => {
      arrived++
      return handler(request)
    },
    ...options
  })
  onTestFinished(() => bench.close())
  return new HeldBench(bench, asked, () => arrived)
}

export async function readRest(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
