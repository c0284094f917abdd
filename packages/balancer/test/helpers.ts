import { Agent, request as httpRequest } from 'node:http'
import { type Body, type BodySink, type BodySource, createHeaders, type Flow, type Handler, ProxyError, type ProxyRequest, target, toSource } from '@proxy/pipeline'
import { type Balancer, type BalancerOptions, createBalancer, type Lease } from '../src/index.ts'

/** Targets named by the keys, with the values as weights. */
export function weighted(weights: Record<string, number>): { origin: string; name: string; weight: number }[] {
  return Object.entries(weights).map(([name, weight], index) => ({ origin: `http://127.0.0.1:${9000 + index}`, name, weight }))
}

export function balancerOf(weights: Record<string, number>, options: Omit<BalancerOptions, 'targets'> = {}): Balancer {
  return createBalancer({ ...options, targets: weighted(weights) })
}

/** `pick()` where there must be something to pick. */
export function take(balancer: Balancer): Lease {
  const lease = balancer.pick()
  if (lease === undefined) throw new Error('nothing to pick')
  return lease
}

/** The names of `count` picks, each released as a success before the next. */
export function names(balancer: Balancer, count: number): string[] {
  return Array.from({ length: count }, () => {
    const lease = take(balancer)
    lease.release('success')
    return lease.target.name
  })
}

/** Picks until `name` comes, releasing the others as aborted: for reaching one target without saying anything about the rest. */
export function takeNamed(balancer: Balancer, name: string): Lease {
  for (let i = 0; i < 1000; i++) {
    const lease = take(balancer)
    if (lease.target.name === name) return lease
    lease.release('aborted')
  }
  throw new Error(`${name} is never picked`)
}

export function failTimes(balancer: Balancer, name: string, times: number): void {
  for (let i = 0; i < times; i++) takeNamed(balancer, name).release('failure')
}

/** mulberry32: uniform numbers in [0, 1), the same for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

export function connectRefused(): ProxyError {
  return new ProxyError('connection refused', { code: 'TEST_CONNECT_REFUSED', status: 502, source: 'upstream', retryable: true, proxyStatus: 'connection_refused' })
}

/** A body whose every step the test takes. */
export class HandMadeBody implements BodySource {
  sink: BodySink | undefined
  resumed = 0
  aborted = 0
  discarded = 0
  readonly length: number | undefined

  constructor(length?: number) {
    this.length = length
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    return {
      resume: () => {
        this.resumed++
      },
      abort: () => {
        this.aborted++
      }
    }
  }

  discard(): void {
    this.discarded++
  }
}

/** Asks the request's target over real sockets with node:http: a failure before the connection stands is retryable, no other is. */
export function nodeUpstream(): Handler {
  // A connection per request: what a client does about pooled connections that have died is not the balancer's matter.
  const agent = new Agent({ keepAlive: false })
  return (request) =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL((request.context.get(target) as { origin: string }).origin)
      let connected = false
      const outgoing = httpRequest({ agent, hostname, port, method: request.method, path: request.target, headers: request.headers as Record<string, string> }, (incoming) => {
        const headers = createHeaders()
        for (const [name, value] of Object.entries(incoming.headers)) if (name !== 'connection' && name !== 'transfer-encoding' && name !== 'keep-alive') headers[name] = value
        resolve({ status: incoming.statusCode as number, headers, body: incoming })
      })
      outgoing.once('socket', (socket) => {
        connected = !socket.connecting
        if (!connected) socket.once('connect', () => (connected = true))
      })
      outgoing.once('error', (cause) =>
        reject(new ProxyError(cause.message, { code: connected ? 'TEST_BROKEN' : 'TEST_CONNECT_REFUSED', status: 502, source: 'upstream', retryable: !connected, cause }))
      )
      send(request, outgoing)
    })
}

function send(request: ProxyRequest, outgoing: ReturnType<typeof httpRequest>): void {
  toSource(request.body).start({
    data: (chunk) => outgoing.write(chunk),
    end: () => outgoing.end(),
    error: (error) => outgoing.destroy(error)
  })
}

/** Starts a body and tells what comes of it. */
export function readBody(body: Body): { flow: Flow; chunks: string[]; ended: Promise<'end' | ProxyError> } {
  const chunks: string[] = []
  let settle: (value: 'end' | ProxyError) => void = () => {}
  const ended = new Promise<'end' | ProxyError>((resolve) => {
    settle = resolve
  })
  const flow = toSource(body).start({
    data(chunk) {
      chunks.push(Buffer.from(chunk).toString())
      return true
    },
    end: () => settle('end'),
    error: settle
  })
  return { flow, chunks, ended }
}
