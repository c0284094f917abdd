import type { Readable } from 'node:stream'
import { type Body, toReadable, WholeBody } from '@proxy/pipeline'

/** A request body as undici takes it. Bytes can be sent again, a stream cannot. */
export function uploadOf(body: Body): Buffer | Readable | null {
  if (body === null) return null
  if (body instanceof Uint8Array) return body as Buffer
  return body instanceof WholeBody ? (body.toBytes() as Buffer) : toReadable(body)
}
