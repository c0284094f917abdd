import { rmSync } from 'node:fs'
import { createInterface } from 'node:readline'

// The program of the watchdog process (see watchdog.ts). It ends when its parent has ended, never before, whoever asks it to.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

const leftovers = new Set<string>()
const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => {
  if (line.startsWith('+')) leftovers.add(line.slice(1))
  else leftovers.delete(line.slice(1))
})
lines.on('close', () => {
  for (const leftover of leftovers) if (leftover.startsWith('pid:')) kill(Number(leftover.slice(4)))
  for (const leftover of leftovers) if (leftover.startsWith('dir:')) rmSync(leftover.slice(4), { recursive: true, force: true, maxRetries: 10 })
  process.exit()
})

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // ended by itself meanwhile
  }
}
