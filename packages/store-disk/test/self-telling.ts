import { createHash } from 'node:crypto'
import type { CacheMeta } from '@proxy/cache'

/** Bytes that tell by themselves whether they are whole and whose they are: length, key's hash, seed, then the seed's stream, behind a SHA-256 of all. */
export function tellingBody(key: string, seed: number, length: number): Buffer {
  const body = Buffer.alloc(Math.max(length, 80))
  body.writeUInt32BE(body.length, 32)
  body.writeUInt32BE(seed, 36)
  createHash('sha256').update(key).digest().copy(body, 40)
  let state = seed >>> 0
  for (let i = 72; i + 4 <= body.length; i += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    body.writeUInt32LE(state, i)
  }
  createHash('sha256').update(body.subarray(32)).digest().copy(body, 0)
  return body
}

/** Whether a body is one that was written whole under this key. */
export function isTelling(key: string, body: Buffer): boolean {
  return (
    body.length >= 80 &&
    body.readUInt32BE(32) === body.length &&
    body.subarray(40, 72).equals(createHash('sha256').update(key).digest()) &&
    body.subarray(0, 32).equals(createHash('sha256').update(body.subarray(32)).digest())
  )
}

export function tellingMeta(key: string, changes: Partial<CacheMeta> = {}): CacheMeta {
  const now = Date.now()
  return { v: 1, url: key, namespace: 'test', status: 200, headers: {}, requestTime: now, responseTime: now, initialAgeMs: 0, keepUntil: now + 3_600_000, tags: [], ...changes }
}
