import { crc32 } from 'node:zlib'
import type { PurgeRecord } from '@proxy/cache'
import { decodePurgeRecord, encodePurgeRecord } from '@proxy/cache/purging'

/** Longer lines are neither written nor read. */
export const MAX_LINE_BYTES = 1024 * 1024
const CHECKSUM_DIGITS = 8

/** A purge as one line of a journal: `crc32 of the text, 8 hex digits | space | text | line feed`. Throws RangeError for one that is too long. */
export function encodeLine(record: PurgeRecord): string {
  const text = encodePurgeRecord(record)
  if (Buffer.byteLength(text) + CHECKSUM_DIGITS + 2 > MAX_LINE_BYTES) throw new RangeError('the purge is too long to be kept')
  return `${crc32(text).toString(16).padStart(CHECKSUM_DIGITS, '0')} ${text}\n`
}

/** The purge in a line without its line feed; `broken` when it is not what was written, `unknown` when another version of this package wrote it. */
export function decodeLine(line: Buffer): PurgeRecord | 'broken' | 'unknown' {
  const text = line.subarray(CHECKSUM_DIGITS + 1)
  const checksum = crc32(text).toString(16).padStart(CHECKSUM_DIGITS, '0')
  if (line.toString('latin1', 0, CHECKSUM_DIGITS + 1) !== `${checksum} `) return 'broken'
  return decodePurgeRecord(text.toString()) ?? 'unknown'
}
