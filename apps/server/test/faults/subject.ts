import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import type { S3Access } from '@proxy/testing'
import { expect } from 'vitest'
import type { Config } from '../../src/index.ts'
import { listeningUrl, ask as readPage, runCli, startProxy, tempFile, until } from '../helpers.ts'
import type { Subject } from './load.ts'

export interface Places {
  readonly origin: string
  readonly redis: string
}

/** Nothing that belongs to a store may be seen outside; a name that occurs nowhere else shows it. */
export function secretName(kind: string): string {
  return `${kind}-${randomBytes(8).toString('hex')}`
}

/** A store that is not at fault is waited for: a machine that is busy must not look like one that is slow. */
const PATIENCE = '5s'

const observability = { cacheStatusHeader: 'x-cache-status' }
const rules = [{ status: 200, ttl: '365d' }]
const negative = { 404: '1h', '5xx': '1m', connectError: '1s' }
const failuresInRedis = { store: 'redis', admit: 'negative' } as const

/** As the image proxy has it, without memory: failures in Redis, content in S3. Every hit comes from a store that can fail. */
export function imageProxy({ origin, redis, s3, bucket }: Places & { s3: S3Access; bucket: string }): Config {
  const { endpoint, region, accessKeyId, secretAccessKey } = s3
  return {
    ...withoutContent({ origin, redis }),
    cache: { tiers: [failuresInRedis, { store: 's3', admit: 'content' }], rules, negative },
    stores: {
      redis: { url: redis, commandTimeout: PATIENCE },
      s3: { endpoint, region, accessKeyId, secretAccessKey, bucket, createBucket: true, firstByteTimeout: PATIENCE }
    }
  }
}

/** The same without S3: only failures are kept. */
export function withoutContent({ origin, redis }: Places): Config {
  return {
    pools: { images: { targets: [origin], forwardClientHeaders: false, xForwarded: false, timeouts: { headers: '20s' } } },
    routes: [{ pool: 'images', methods: ['GET', 'HEAD'], dropQuery: true, responseHeaders: { set: { 'cache-control': 'public, max-age=604800' } } }],
    cache: { tiers: [failuresInRedis], rules, negative },
    stores: { redis: { url: redis, commandTimeout: PATIENCE } },
    observability
  }
}

/** Memory for content, Redis for failures. */
export function memoryAndRedis({ origin, redis }: Places): Config {
  return { ...withoutContent({ origin, redis }), cache: { tiers: [failuresInRedis, { store: 'memory', admit: 'content' }], rules, negative } }
}

/** Memory first, Redis behind it. */
export function memoryFirst({ origin, redis }: Places): Config {
  return { ...withoutContent({ origin, redis }), cache: { tiers: ['memory', 'redis'], rules, negative } }
}

/** Memory alone. */
export function memoryOnly({ origin, redis }: Places): Config {
  return { ...withoutContent({ origin, redis }), cache: { tiers: ['memory'], rules, negative } }
}

/** The server in this process: an unhandled rejection or exception fails the test run. */
export async function startInProcess(config: Config): Promise<Subject> {
  const { url, logText } = await startProxy(config)
  return { url, logText, asked: 0 }
}

/** The built server as a process of its own. */
export async function startAsProcess(config: Config): Promise<Subject & { readonly child: ChildProcess; readonly exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }> }> {
  const cli = runCli(['--config', tempFile(JSON.stringify({ listeners: [{ port: 0 }], ...config }), 'proxy.json')])
  const url = await listeningUrl(cli)
  return { url, logText: () => cli.stdout() + cli.stderr(), asked: 0, child: cli.child, exit: cli.exit }
}

/** Sums of samples by name, over all labels that are not given. */
export async function readMetrics({ url }: Subject): Promise<(name: string, labels?: Readonly<Record<string, string>>) => number> {
  const { text } = await readPage(`${url}/_proxy/metrics`)
  const samples = [...text.matchAll(/^(\w+)(?:\{([^}]*)\})? (\S+)$/gm)].map(([, name, labels = '', value]) => ({ name, labels: labels.split(','), value: Number(value) }))
  return (name, labels = {}) => {
    const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`)
    let sum = 0
    for (const sample of samples) if (sample.name === name && wanted.every((label) => sample.labels.includes(label))) sum += sample.value
    return sum
  }
}

export interface Soundness {
  /** Stores that must have failed: that is counted and told, but not with a line for every request. The others may have, where the machine is too busy. */
  readonly storeErrors: readonly ('redis' | 's3')[]
  /** Texts that must be in no line of the log. */
  readonly secrets: readonly string[]
  /** Answers that broke off, by what the metrics call it. Default none. */
  readonly incomplete?: { readonly failed?: number; readonly aborted?: number } | 'some'
}

/** After a fault: the server answers, has counted right, has lost nothing that was under way and has given nothing away. */
export async function expectSound(subject: Subject, { storeErrors, secrets, incomplete = {} }: Soundness): Promise<void> {
  await until(async () => (await readMetrics(subject))('http_requests_in_flight') === 0)
  const health = await readPage(`${subject.url}/_proxy/health`)
  expect(health).toMatchObject({ status: 200 })
  expect(JSON.parse(health.text)).toMatchObject({ status: 'healthy' })
  expect((await readPage(`${subject.url}/_proxy/ready`)).status).toBe(200)

  const count = await readMetrics(subject)
  expect(count('http_requests_total')).toBe(subject.asked)
  expect(count('proxy_cache_results_total')).toBeLessThanOrEqual(subject.asked)
  if (incomplete !== 'some') {
    const { failed = 0, aborted = 0 } = incomplete
    expect({ failed: count('http_responses_incomplete_total', { outcome: 'failed' }), aborted: count('http_responses_incomplete_total', { outcome: 'aborted' }) }).toEqual({ failed, aborted })
  }
  const text = subject.logText()
  for (const store of ['redis', 's3'] as const) {
    const lines = text.split(`"store":"${store}"`).length - 1
    expect({ store, told: lines > 0, tooOften: lines > 1 }).toEqual({ store, told: count('proxy_store_errors_total', { store }) > 0, tooOften: false })
    if (storeErrors.includes(store)) expect({ store, told: lines > 0 }).toEqual({ store, told: true })
  }
  for (const secret of secrets) expect(text.includes(secret), `the log has ${secret}`).toBe(false)
  expect(text).not.toMatch(/"level":"(?:error|fatal)"|unhandled|uncaught|\n {4}at |\\n {4}at |Warning:/i)
}
