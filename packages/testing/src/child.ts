import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { unwatch, watch } from './watchdog.ts'

/** A running process of a service. It never keeps this process alive and never outlives it. */
export interface Child {
  readonly pid: number
  /** How it ended, undefined while it runs. */
  readonly ended: string | undefined
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void
  /** SIGKILL; resolves when it is gone. Does nothing if it is. */
  kill(): Promise<void>
}

export interface ChildOptions {
  command: string
  args: readonly string[]
  /** Added to the environment of this process. */
  env?: NodeJS.ProcessEnv
  /** Gets everything it prints. */
  logPath: string
}

/** Starts a process. Rejects if it cannot be started. */
export async function startChild({ command, args, env, logPath }: ChildOptions): Promise<Child> {
  const log = openSync(logPath, 'a')
  // A file, not a pipe: a pipe nobody reads stops the writer, and one that is read keeps this process alive.
  const child = spawn(command, args, { stdio: ['ignore', log, log], env: { ...process.env, ...env } })
  closeSync(log)
  const pid = await pidOf(child)
  watch(`pid:${pid}`)
  child.unref()
  let ended: string | undefined
  const gone = new Promise<void>((resolve) => {
    child.once('exit', (code, signal) => {
      unwatch(`pid:${pid}`)
      ended = signal ?? `exit code ${code}`
      resolve()
    })
  })
  return {
    pid,
    get ended() {
      return ended
    },
    signal(signal) {
      if (!ended) child.kill(signal)
    },
    kill() {
      if (!ended) {
        child.ref()
        child.kill('SIGKILL')
      }
      return gone
    }
  }
}

function pidOf(child: ChildProcess): Promise<number> | number {
  if (child.pid !== undefined) return child.pid
  return new Promise((_resolve, reject) => child.once('error', reject))
}

/**
 * Asks `probe` again and again until it says yes. When the process ends first, or `timeoutMs` has passed, kills it and rejects with the end of its log.
 * A probe tells "not yet" by false and must come to an end by itself.
 */
export async function untilReady(child: Child, logPath: string, timeoutMs: number, probe: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!child.ended && performance.now() < deadline) {
    if (await probe()) return
    await delay(5)
  }
  const how = child.ended ? `ended (${child.ended})` : `was not ready after ${timeoutMs} ms`
  await child.kill()
  throw new Error(`process ${child.pid} ${how}: ${readFileSync(logPath, 'utf8').slice(-2000)}`)
}
