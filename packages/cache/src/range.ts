import { type ByteRange, combined, type HeaderMap } from '@proxy/pipeline'

/** `unsatisfiable`: 416. `ignore`: answered whole, as RFC 9110 section 14.2 allows for what is malformed, of another unit, or more than one range. */
export type RangeDecision = ByteRange | 'unsatisfiable' | 'ignore'

const oneRange = /^bytes=[ \t]*(?:(\d+)-(\d*)|-(\d+))[ \t]*$/i

/** The single range that a request asks of a body of `length` bytes. Numbers beyond what a double holds exactly are beyond any body too. */
export function requestedRange(request: Readonly<HeaderMap>, length: number): RangeDecision {
  const match = oneRange.exec(combined(request.range) ?? '')
  if (match === null) return 'ignore'
  if (match[3] !== undefined) {
    const last = Number(match[3])
    if (last === 0 || length === 0) return 'unsatisfiable'
    return { start: Math.max(0, length - last), end: length - 1 }
  }
  const start = Number(match[1])
  const end = match[2] === '' ? length - 1 : Number(match[2])
  if (match[2] !== '' && end < start) return 'ignore'
  return start >= length ? 'unsatisfiable' : { start, end: Math.min(end, length - 1) }
}
