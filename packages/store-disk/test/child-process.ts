import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { onTestFinished } from 'vitest'

export interface Worker {
  readonly process: ChildProcess
  /** Lines it printed so far. */
  readonly lines: readonly string[]
  line(): Promise<string>
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  /** Resolves to its exit code. */
  ended(): Promise<number | null>
}

/** Runs a script of this folder as a process of its own, which is gone at the latest when the test is. `within`: a program and its arguments that start it. */
export function startWorker(script: string, args: readonly string[], within: readonly string[] = []): Worker {
  const path = (name: string): string => new URL(name, import.meta.url).pathname
  const [program = '', ...programArgs] = [...within, process.execPath, '--import', path('./child-hooks.mjs'), path(script), ...args]
  const child = spawn(program, programArgs, { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const lines: string[] = []
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() as string
    lines.push(...parts)
    if (parts.length > 0) child.emit('line')
  })
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  onTestFinished(kill)
  return {
    process: child,
    lines,
    kill,
    async line() {
      const before = lines.length
      if (before === 0) await Promise.race([once(child, 'line'), exited])
      return lines.at(-1) ?? ''
    },
    ended: () => exited.then(([code]) => code as number | null)
  }
}
