import { createHash } from 'node:crypto'
import { Agent, type IncomingHttpHeaders, request } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import { bytesOf, contentOf, hashOf } from './content.ts'

/** A proxy under test. */
export interface Subject {
  readonly url: string
  readonly logText: () => string
  /** Requests that were sent to it by the functions here. */
  asked: number
}

/** What became of one request, as its client saw it. */
export interface Outcome {
  readonly path: string
  /** 0: there was no answer. */
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** What the proxy says its cache did. */
  readonly cache: string
  /** Bytes of the body that arrived, and their SHA-256. */
  readonly length: number
  readonly hash: string
  /** The message ended as it should. */
  readonly complete: boolean
  readonly error: string
  readonly startedMs: number
  /** When the header was there. */
  readonly answeredMs: number
  readonly endedMs: number
  /** Small bodies, as text. */
  readonly text: string
}

export interface AskOptions {
  readonly agent?: Agent
  /** Asks for what is stored, or 504: the origin hears nothing of it. */
  readonly onlyIfCached?: boolean
  /** Called when the header is there. */
  readonly onAnswer?: () => void
  /** Called with each part of the body; `false` ends the connection from the client's side. */
  readonly onData?: (received: number) => boolean | undefined
  /** Resolves when the body may be read. */
  readonly readWhen?: Promise<unknown>
}

/** Part of every cache key: what one server has stored, another one on the same stores finds. */
const HOST = 'images.example.org'

/** One request. Never rejects. */
export function ask(subject: Subject, path: string, { agent, onlyIfCached = false, onAnswer, onData, readWhen }: AskOptions = {}): Promise<Outcome> {
  subject.asked++
  return new Promise((resolve) => {
    const startedMs = performance.now()
    const digest = createHash('sha256')
    let [length, status, answeredMs, headers, text, settled] = [0, 0, 0, {} as IncomingHttpHeaders, '', false]
    const settle = (complete: boolean, error = ''): void => {
      if (settled) return
      settled = true
      const endedMs = performance.now()
      const cache = String(headers['x-cache-status'] ?? '')
      resolve({ path, status, headers, cache, length, hash: digest.digest('hex'), complete, error, startedMs, answeredMs: answeredMs || endedMs, endedMs, text })
    }
    const outgoing = request(subject.url + path, { agent: agent ?? false, headers: { host: HOST, ...(onlyIfCached && { 'cache-control': 'only-if-cached' }) } }, (incoming) => {
      answeredMs = performance.now()
      status = incoming.statusCode ?? 0
      headers = incoming.headers
      onAnswer?.()
      incoming.on('end', () => settle(incoming.complete))
      incoming.on('error', (error: Error) => settle(false, error.message))
      incoming.on('close', () => settle(false, 'closed'))
      const read = (): void => {
        incoming.on('data', (chunk: Buffer) => {
          if (settled) return
          length += chunk.byteLength
          digest.update(chunk)
          if (length <= 2048) text += chunk.toString('latin1')
          if (onData?.(length) === false) {
            settle(false, 'left')
            outgoing.destroy()
          }
        })
      }
      if (readWhen === undefined) read()
      else void readWhen.then(read, read)
    })
    outgoing.on('error', (error) => settle(false, error.message))
    outgoing.end()
  })
}

/** Until the answer is kept, which happens in the background: what the store gives then. */
export async function untilStored(subject: Subject, path: string): Promise<Outcome> {
  for (const deadlineMs = performance.now() + 20_000; ; ) {
    const outcome = await ask(subject, path, { onlyIfCached: true })
    if (outcome.status !== 504) return outcome
    if (performance.now() > deadlineMs) throw new Error(`${path} was not stored`)
    await setTimeout(20)
  }
}

export interface LoadOptions {
  /** Default 20. */
  readonly clients?: number
  /** Default 500. Or until a promise is settled. */
  readonly requests?: number | Promise<unknown>
  readonly path: (i: number) => string
  /** Clients leave at the first bytes of each answer. */
  readonly leave?: boolean
  /** What happens when so many requests have been started; nobody waits for it. */
  readonly at?: Readonly<Record<number, () => unknown>>
}

/** Requests of many clients, each on a connection of its own, one after another. */
export async function load(subject: Subject, { clients = 20, requests = 500, path, leave = false, at = {} }: LoadOptions): Promise<Outcome[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: clients })
  const outcomes: Outcome[] = []
  const events: unknown[] = []
  let limit = typeof requests === 'number' ? requests : Number.POSITIVE_INFINITY
  const stop = (): void => {
    limit = 0
  }
  if (typeof requests !== 'number') void requests.then(stop, stop)
  let started = 0
  const client = async (): Promise<void> => {
    while (started < limit) {
      const i = started++
      if (at[i] !== undefined) events.push(at[i]())
      outcomes.push(await ask(subject, path(i), { agent, ...(leave && { onData: () => false }) }))
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  agent.destroy()
  await Promise.all(events)
  return outcomes
}

/**
 * `right`: the whole right answer. `cut`: broken off visibly, and right as far as it went. `failed`: an answer of the proxy that says so.
 * `wrong`: anything else, above all bytes that pass for complete and are not.
 */
export type Verdict = 'right' | 'cut' | 'failed' | 'wrong'

const phrases: Readonly<Record<number, string>> = { 502: 'Bad Gateway\n', 503: 'Service Unavailable\n', 504: 'Gateway Timeout\n' }

export function verdictOf({ path, status, complete, length, hash, text }: Outcome): Verdict {
  const expected = contentOf(path)
  if (complete && status === expected.status && hash === expected.hash) return 'right'
  if (complete) return text === phrases[status] ? 'failed' : 'wrong'
  return length === 0 || (status === expected.status && hash === hashOf(bytesOf(path).subarray(0, length))) ? 'cut' : 'wrong'
}

/** How many there are of each verdict: `{ right: 500 }`. */
export function verdicts(outcomes: readonly Outcome[]): Partial<Record<Verdict, number>> {
  const counts: Partial<Record<Verdict, number>> = {}
  for (const outcome of outcomes) {
    const verdict = verdictOf(outcome)
    counts[verdict] = (counts[verdict] ?? 0) + 1
  }
  return counts
}

/** What was not right, in words; a few of them. */
export function problems(outcomes: readonly Outcome[]): string[] {
  const bad = outcomes.filter((outcome) => verdictOf(outcome) !== 'right')
  return bad.slice(0, 10).map((outcome) => `${outcome.path}: ${verdictOf(outcome)}, status ${outcome.status}, ${outcome.length} bytes, cache ${outcome.cache}, ${outcome.error}`)
}

/** Milliseconds until the header of the answer was there. */
const waitOf = ({ startedMs, answeredMs }: Outcome): number => answeredMs - startedMs

/** What requests waited; `share` 0.99 is p99. */
export function waitMs(outcomes: readonly Outcome[], share: number): number {
  const sorted = outcomes.map(waitOf).sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
}

/** How many waited at least `ms`. */
export function slowerThan(outcomes: readonly Outcome[], ms: number): number {
  return outcomes.filter((outcome) => waitOf(outcome) >= ms).length
}
