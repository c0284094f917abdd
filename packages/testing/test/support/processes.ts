import { readFileSync } from 'node:fs'

/** Whether the process runs. One that ended and that nobody has waited for yet (a zombie) does not. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch {
    return false
  }
  if (process.platform !== 'linux') return true
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    // ended between the two looks
    return false
  }
}
