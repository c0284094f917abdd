import { type ByteRange, combined, type HeaderMap, type ProxyRequest } from '@proxy/pipeline'

/** Two ranges or more are apart from one another. `unsatisfiable`: 416. `ignore`: answered whole, as RFC 9110 section 14.2 allows for what is malformed, of another unit, or too much. */
export type RangeDecision = ByteRange | readonly ByteRange[] | 'unsatisfiable' | 'ignore'

/** More ranges than these are nobody's honest wish. */
const MAX_RANGES = 32
/** Ranges that lie closer together are sent as one: the text between two parts takes about as much. Bytes. */
const MIN_GAP_BYTES = 80

const unit = /^bytes=/i
const oneRange = /^(?:(\d+)-(\d*)|-(\d+))$/

/** The ranges that a request asks of a body of `length` bytes (RFC 9110 section 14.1.2). Numbers beyond what a double holds exactly are beyond any body too. */
export function requestedRange(request: Readonly<HeaderMap>, length: number): RangeDecision {
  const text = combined(request.range) ?? ''
  if (!unit.test(text)) return 'ignore'
  const specs = text.slice('bytes='.length).split(',', MAX_RANGES + 1)
  if (specs.length > MAX_RANGES) return 'ignore'
  const ranges: ByteRange[] = []
  for (const spec of specs) {
    const range = rangeOf(spec.trim(), length)
    if (range === 'ignore') return 'ignore'
    if (range !== 'unsatisfiable') ranges.push(range)
  }
  if (ranges.length === 0) return 'unsatisfiable'
  const merged = merge(ranges)
  return merged.length === 1 ? (merged[0] as ByteRange) : merged
}

function rangeOf(spec: string, length: number): ByteRange | 'unsatisfiable' | 'ignore' {
  const match = oneRange.exec(spec)
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

/** So that nobody gets more than the body, however often a request names the same bytes (RFC 9110 section 15.3.7.2). */
function merge(ranges: ByteRange[]): ByteRange[] {
  if (ranges.length < 2) return ranges
  const sorted = [...ranges].sort((a, b) => a.start - b.start)
  const merged = [sorted[0] as ByteRange]
  for (const range of sorted) {
    const last = merged[merged.length - 1] as ByteRange
    if (range.start - last.end <= MIN_GAP_BYTES) merged[merged.length - 1] = { start: last.start, end: Math.max(last.end, range.end) }
    else merged.push(range)
  }
  // In the order in which the client has named them.
  const named = (whole: ByteRange): number => ranges.findIndex(({ start }) => start >= whole.start && start <= whole.end)
  return merged.sort((a, b) => named(a) - named(b))
}

export interface ContentRange extends ByteRange {
  /** Bytes of the whole. */
  readonly total: number
}

/** `bytes=0-`, as players begin: the whole, and to be told that it is one part of it. Waits for no bytes but those that it wants first. */
export function asksForAll({ headers, method }: ProxyRequest): boolean {
  return headers.range === 'bytes=0-' && method === 'GET'
}

/** What a 206 says that it is. Undefined where the whole's length is unknown, or what is said is no range of it. */
export function contentRange(headers: Readonly<HeaderMap>): ContentRange | undefined {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/i.exec(combined(headers['content-range']) ?? '')
  if (match === null) return undefined
  const [start, end, total] = [Number(match[1]), Number(match[2]), Number(match[3])]
  return start <= end && end < total ? { start, end, total } : undefined
}
