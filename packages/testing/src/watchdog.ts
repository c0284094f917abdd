import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { join } from 'node:path'

/**
 * What must not outlive this process: `pid:NUMBER` is killed and `dir:PATH` is removed when this process ends, however it ends.
 * A process killed with SIGKILL runs no handler of its own, so a second process does it: it reads a pipe that only this process holds open.
 */
export type Leftover = `pid:${number}` | `dir:${string}`

let watchdog: ChildProcess | undefined

export function watch(leftover: Leftover): void {
  watchdog ??= startWatchdog()
  tell(watchdog, `+${leftover}`)
}

/** Call it as soon as the process has ended or the folder is gone: pids are given out again. */
export function unwatch(leftover: Leftover): void {
  if (watchdog) tell(watchdog, `-${leftover}`)
}

function tell(process: ChildProcess, message: string): void {
  process.stdin?.write(`${message}\n`)
}

function startWatchdog(): ChildProcess {
  const { NODE_OPTIONS: _, ...env } = process.env
  // detached: a Ctrl-C, or a kill of the whole process group, must not reach it, not even before it has run its first line.
  const child = spawn(process.execPath, [join(import.meta.dirname, 'watchdog-process.ts')], { stdio: ['pipe', 'ignore', 'ignore'], env, detached: true })
  // Without the watchdog the promise above is broken, so the run fails: an 'error' or a broken pipe is left uncaught.
  child.unref()
  const pipe = child.stdin as unknown as Socket
  pipe.unref()
  return child
}
