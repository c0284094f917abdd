import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { type Config, createServer, type ProxyServer } from '../src/index.ts'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly text: string
}

export interface AskOptions {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string
  readonly agent?: Agent
}

/** One request on a connection of its own, or on the agent's. */
export function ask(url: string, options: AskOptions = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(url, { method: options.method ?? 'GET', headers: options.headers ?? {}, agent: options.agent ?? false }, (incoming) => {
      const chunks: Buffer[] = []
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
      incoming.on('error', reject)
      incoming.on('end', () => {
        const body = Buffer.concat(chunks)
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body, text: body.toString('utf8') })
      })
    })
    outgoing.on('error', reject)
    outgoing.end(options.body)
  })
}

export interface RunningProxy {
  readonly server: ProxyServer
  readonly url: string
  /** Log lines so far, parsed. */
  readonly lines: Record<string, unknown>[]
  /** The lines of requests. */
  readonly requests: () => Record<string, unknown>[]
  /** All that was logged, as text. */
  readonly logText: () => string
}

/** A server in this process on a free port, closed when the test has finished. */
export async function startProxy(config: Config): Promise<RunningProxy> {
  const written: string[] = []
  const lines: Record<string, unknown>[] = []
  const log = {
    write(text: string) {
      written.push(text)
      for (const line of text.split('\n')) if (line !== '') lines.push(JSON.parse(line) as Record<string, unknown>)
    }
  }
  const server = await createServer({ listeners: [{ port: 0 }], ...config }, { log })
  await server.listen()
  onTestFinished(async () => {
    await server.close(0)
  })
  return { server, url: server.urls[0] as string, lines, requests: () => lines.filter(({ msg }) => msg === 'request'), logText: () => written.join('') }
}

/** The port of a server that accepts connections and says nothing, closed when the test has finished. */
export async function silentPort(): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createTcpServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {}) // who gives up waiting may reset the connection
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return (server.address() as AddressInfo).port
}

/** A folder that is removed when the test has finished. */
export function tempFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'proxy-server-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A file with `content` in a folder of its own. */
export function tempFile(content: string, name = 'proxy.yaml'): string {
  const file = join(tempFolder(), name)
  writeFileSync(file, content)
  return file
}

export interface Cli {
  readonly child: ChildProcess
  readonly stdout: () => string
  readonly stderr: () => string
  /** Resolves when standard output matches; rejects when the process ends first. */
  waitFor(pattern: RegExp): Promise<RegExpExecArray>
  readonly exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

export const entry = fileURLToPath(new URL('../dist/main.js', import.meta.url))
/** Nothing of this machine's environment may look like settings of the server. */
export const cleanEnv = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(?:S3_|REDIS_|UPSTREAM_|SERVER_|SSL_|CACHE_|RUST_LOG)/.test(name)))

/** The built command line program, killed when the test has finished. With options of Node, which may load modules into it, it also has a channel for messages. */
export function runCli(args: readonly string[], env: Record<string, string> = {}, nodeArgs: readonly string[] = []): Cli {
  const child = spawn(process.execPath, [...nodeArgs, entry, ...args], { env: { ...cleanEnv, ...env }, stdio: ['ignore', 'pipe', 'pipe', nodeArgs.length > 0 ? 'ipc' : 'ignore'] })
  let stdout = ''
  let stderr = ''
  const watchers = new Set<() => void>()
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString('utf8')
    for (const watcher of watchers) watcher()
  })
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString('utf8')
  })
  const exit = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => child.once('close', (code, signal) => resolve({ code, signal })))
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exit
  })
  return {
    child,
    stdout: () => stdout,
    stderr: () => stderr,
    exit,
    waitFor(pattern) {
      return new Promise((resolve, reject) => {
        const look = (): void => {
          const match = pattern.exec(stdout)
          if (match === null) return
          watchers.delete(look)
          resolve(match)
        }
        watchers.add(look)
        void exit.then(({ code }) => reject(new Error(`ended with ${code} before ${pattern} was written\n${stdout}\n${stderr}`)))
        look()
      })
    }
  }
}

/** Where a server that was started by `runCli` says it listens. */
export async function listeningUrl(cli: Cli): Promise<string> {
  const [, url] = await cli.waitFor(/"url":"([^"]+)","msg":"listening"/)
  return url as string
}

/** Waits until `condition` holds; for what another connection or process does. */
export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`did not come true within ${timeoutMs} ms: ${condition.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
