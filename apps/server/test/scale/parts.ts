import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import type { Config } from '../../src/index.ts'
import { listeningUrl, ask as readPage, runCli, tempFile, until } from '../helpers.ts'
import type { MemoryReading } from './memory-probe.ts'
import type { Limit, Report } from './origin-process.ts'

/** A thousand connections, or 2 GB, on a machine that does other things too. For one wait, and for a whole test. */
export const PATIENCE_MS = 120_000
export const TEST_MS = 240_000

/** `until` with that patience. */
export function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  return until(condition, PATIENCE_MS)
}

const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

export interface OriginProcess {
  readonly url: string
  /** Paths that were asked for, in order. */
  readonly asked: string[]
  /** Those whose answers the proxy gave up before their end. */
  readonly left: string[]
  /** Lets answers to a path go so far and no further; without it they go to their end. */
  limit(path: string, bytes: number): void
  /** Resets the connections of those who have asked for it, after so many bytes. Below 0: without an answer. */
  cut(path: string, bytes: number): void
  /** Lets answers go to their end. */
  release(path: string): void
}

export async function startOriginProcess(): Promise<OriginProcess> {
  const child = fork(file('./origin-process.ts'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const [{ port }] = (await once(child, 'message')) as [Report]
  const asked: string[] = []
  const left: string[] = []
  child.on('message', (report: Report) => {
    if (report.asked !== undefined) asked.push(report.asked)
    if (report.left !== undefined) left.push(report.left)
  })
  const send = (limit: Limit): void => void child.send(limit)
  return {
    url: `http://127.0.0.1:${port}`,
    asked,
    left,
    limit: (path, bytes) => send({ path, bytes }),
    cut: (path, bytes) => send({ path, bytes, cut: true }),
    release: (path) => send({ path, bytes: Number.MAX_SAFE_INTEGER })
  }
}

export interface ServerProcess {
  readonly url: string
  readonly port: number
  /** After a full collection, unless `collect` is false. */
  memory(collect?: boolean): Promise<MemoryReading>
  /** Requests that are being answered. */
  inFlight(): Promise<number>
  readonly logText: () => string
}

/** The built server as a process of its own, with one pool and no line per request. */
export async function startServerProcess(origin: OriginProcess, config: Partial<Config> = {}): Promise<ServerProcess> {
  const whole: Config = {
    listeners: [{ port: 0 }],
    pools: { origin: { targets: [origin.url] } },
    observability: { accessLog: false },
    ...config
  }
  const cli = runCli(['--config', tempFile(JSON.stringify(whole), 'proxy.json')], {}, ['--expose-gc', '--import', file('./memory-probe.ts')])
  const url = await listeningUrl(cli)
  return {
    url,
    port: Number(new URL(url).port),
    async memory(collect = true) {
      const answer = once(cli.child, 'message')
      cli.child.send({ collect })
      const [reading] = (await answer) as [MemoryReading]
      return reading
    },
    async inFlight() {
      const { text } = await readPage(`${url}/_proxy/metrics`)
      return Number(/^http_requests_in_flight (\d+)$/m.exec(text)?.[1])
    },
    logText: () => cli.stdout() + cli.stderr()
  }
}

/** Until so many requests have come to the server and none of them is answered yet. */
export function untilInFlight(server: ServerProcess, count: number): Promise<void> {
  return eventually(async () => (await server.inFlight()) === count)
}

/** For what tests tell about themselves. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}
