/**
 * Bodies of any length out of one buffer: byte `n` of a path's body is byte `n + shift(path)` of a noise that repeats after a prime number of bytes. Pieces that
 * are lost, doubled or out of place are seen, whatever power of two they measure, and neither side makes, keeps or hashes what it sends or checks.
 */
const PERIOD_BYTES = 1_048_573

/** The longest slice that `expected` gives. */
export const SLICE_BYTES = 256 * 1024

const noise = makeNoise()

function makeNoise(): Buffer {
  const bytes = Buffer.alloc(PERIOD_BYTES + SLICE_BYTES)
  let state = 0x2545f491
  for (let i = 0; i < PERIOD_BYTES; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[i] = state
  }
  bytes.copy(bytes, PERIOD_BYTES, 0, SLICE_BYTES)
  return bytes
}

function shiftOf(path: string): number {
  let shift = 0
  for (let i = 0; i < path.length; i++) shift = (shift * 31 + path.charCodeAt(i)) % PERIOD_BYTES
  return shift
}

/** The right bytes of one path. */
export class Pattern {
  private readonly shift: number

  constructor(path: string) {
    this.shift = shiftOf(path)
  }

  /** `length` bytes from `at` on; no more than `SLICE_BYTES`. Shared: not to be changed. */
  slice(at: number, length: number): Buffer {
    const start = (this.shift + at) % PERIOD_BYTES
    return noise.subarray(start, start + length)
  }

  /** Whether `bytes` from `start` to `end` are those from `at` on. */
  matches(at: number, bytes: Buffer, start: number, end: number): boolean {
    for (let from = start; from < end; from += SLICE_BYTES) {
      const length = Math.min(SLICE_BYTES, end - from)
      if (this.slice(at + from - start, length).compare(bytes, from, from + length) !== 0) return false
    }
    return true
  }
}

/** What `/BYTES/NAME` and `/BYTES/chunked/NAME` stand for. */
export function sizeOf(path: string): { readonly bytes: number; readonly declared: boolean } {
  const [, bytes, kind] = path.split('/')
  return { bytes: Number(bytes), declared: kind !== 'chunked' }
}
