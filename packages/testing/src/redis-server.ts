import { join } from 'node:path'
import { type Child, startChild, untilReady } from './child.ts'
import { freePort } from './free-port.ts'
import { rawExchange } from './raw-client.ts'
import { redisBinaries, type ServiceBinaries } from './service-binaries.ts'
import { createTempDir } from './temp-dir.ts'

export interface RedisServer {
  /** `redis://127.0.0.1:PORT` */
  readonly url: string
  readonly port: number
  /** Of the process that runs now or ran last. */
  readonly pid: number
  /** SIGSTOP: connections are accepted by the kernel and stay open, nothing is answered. */
  freeze(): void
  /** SIGCONT: what was asked meanwhile is answered. */
  thaw(): void
  /** SIGKILL: connections are reset and new ones refused. Resolves when the process is gone. */
  kill(): Promise<void>
  /** Kills the server if it runs and starts it on the same port, empty unless `args` turned persistence on. */
  restart(): Promise<void>
  /** Ends the server and removes its data. May be called more than once. */
  stop(): Promise<void>
}

const startTimeoutMs = 30_000

/**
 * Starts a redis-server of its own for a test, on a free port of 127.0.0.1, without persistence. `args` are appended to its command line (`['--maxmemory', '1mb']`).
 * Rejects if there is no redis-server and none can be unpacked, or if it ends at once (a wrong argument).
 */
export async function startRedis({ args = [] }: { args?: readonly string[] } = {}): Promise<RedisServer> {
  const binaries = await redisBinaries()
  const dir = await createTempDir('redis-')
  try {
    const { port, child } = await startOnFreePort(binaries, dir.path, args)
    let current = child
    return {
      url: `redis://127.0.0.1:${port}`,
      port,
      get pid() {
        return current.pid
      },
      freeze: () => current.signal('SIGSTOP'),
      thaw: () => current.signal('SIGCONT'),
      kill: () => current.kill(),
      async restart() {
        await current.kill()
        current = await start(binaries, dir.path, port, args)
      },
      async stop() {
        await current.kill()
        await dir.remove()
      }
    }
  } catch (error) {
    await dir.remove()
    throw error
  }
}

async function startOnFreePort(binaries: ServiceBinaries, dir: string, args: readonly string[]): Promise<{ port: number; child: Child }> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort()
    try {
      return { port, child: await start(binaries, dir, port, args) }
    } catch (error) {
      // another process took the port between the look and the use
      if (attempt < 5 && /Address already in use/.test(String(error))) continue
      throw error
    }
  }
}

async function start(binaries: ServiceBinaries, dir: string, port: number, args: readonly string[]): Promise<Child> {
  const logPath = join(dir, `log-${port}`)
  const child = await startChild({
    command: binaries.command('redis-server'),
    args: ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', dir, '--save', '', '--appendonly', 'no', ...args],
    env: binaries.env,
    logPath
  })
  await untilReady(child, logPath, startTimeoutMs, () => answers(port, child.pid))
  return child
}

/** Our own process answers on the port and has loaded its data; one that wants a password says so instead. */
async function answers(port: number, pid: number): Promise<boolean> {
  try {
    const answer = (await rawExchange(port, 'PING\r\nINFO server\r\n', { until: /process_id:\d+\r|NOAUTH|LOADING/, timeoutMs: 1000 })).toString()
    return answer.includes('NOAUTH') || (answer.includes('+PONG') && answer.includes(`process_id:${pid}\r`))
  } catch {
    // refused or mute: not yet
    return false
  }
}
