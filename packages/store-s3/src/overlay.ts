import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib'
import { MAX_META_BYTES } from './frame.ts'

/** The object's user metadata: S3 allows 2048 bytes for names and values together. */
export const OVERLAY_FIELD = 'proxy-meta'
const MAX_OVERLAY_CHARS = 2048 - OVERLAY_FIELD.length

/**
 * Metadata that replaces that of the object's head, as text for a user metadata field: what a touch changes without writing the body again.
 * It is deflated with the original metadata as dictionary, so only the difference takes room. Undefined when it does not fit.
 */
export function encodeOverlay(version: string, original: Buffer, changed: Buffer): string | undefined {
  if (changed.byteLength > MAX_META_BYTES) return undefined
  const deflated = deflateRawSync(changed, { dictionary: original, level: 9 })
  const bytes = Buffer.allocUnsafe(4 + deflated.byteLength)
  bytes.writeUInt32BE(crc32(changed, crc32(version)), 0)
  bytes.set(deflated, 4)
  const text = bytes.toString('base64url')
  return text.length <= MAX_OVERLAY_CHARS ? text : undefined
}

/**
 * The metadata that `encodeOverlay` was given; undefined when the text is broken or belongs to another version (a copy that raced a put leaves it with the
 * new object): the object's own metadata holds then.
 */
export function decodeOverlay(version: string, original: Buffer, text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  if (bytes.byteLength < 4) return undefined
  try {
    const changed = inflateRawSync(bytes.subarray(4), { dictionary: original, maxOutputLength: MAX_META_BYTES })
    return crc32(changed, crc32(version)) === bytes.readUInt32BE(0) ? changed : undefined
  } catch {
    // Not what deflate made: broken, as a failed checksum is.
    return undefined
  }
}
