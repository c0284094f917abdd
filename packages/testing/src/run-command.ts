import { execFile } from 'node:child_process'
import { unwatch, watch } from './watchdog.ts'

export interface CommandOptions {
  cwd?: string
  /** Added to the environment of this process. */
  env?: NodeJS.ProcessEnv
  /** Default 60000. */
  timeoutMs?: number
}

/** Runs a command to its end and resolves with what it printed. Rejects, with the end of what it printed to stderr, if it fails. */
export function runCommand(command: string, args: readonly string[], { cwd, env, timeoutMs = 60_000 }: CommandOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, { cwd, env: { ...process.env, ...env }, timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      if (child.pid !== undefined) unwatch(`pid:${child.pid}`)
      if (error) reject(new Error(`${command} ${args.join(' ')}: ${stderr.slice(-2000) || error.message}`, { cause: error }))
      else resolve(stdout)
    })
    if (child.pid !== undefined) watch(`pid:${child.pid}`)
  })
}
