import { randomBytes } from 'node:crypto'

const ofThisProcess = `${randomBytes(9).toString('base64url')}-`
let count = 0

/** A text that no process has given out before. */
export function uniqueId(): string {
  return `${ofThisProcess}${(count++).toString(36)}`
}
