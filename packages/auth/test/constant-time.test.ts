import { randomBytes } from 'node:crypto'
import { afterEach, expect, test, vi } from 'vitest'
import { constantTimeIndexOf, MAX_CREDENTIAL_LENGTH } from '../src/index.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

test('finds each candidate where it stands', () => {
  const candidates = ['alpha', 'bravo', 'a', 'a-longer-one']
  for (const [index, candidate] of candidates.entries()) expect(constantTimeIndexOf(candidate, candidates)).toBe(index)
})

test('what is not there is not found: other text, a part, a longer one, other case', () => {
  for (const value of ['brave', 'alph', 'alphaa', 'Alpha', ' alpha', 'zzzzz']) expect(constantTimeIndexOf(value, ['alpha', 'bravo'])).toBe(-1)
})

test('the empty value is never found, not even among empty candidates', () => {
  expect(constantTimeIndexOf('', ['', 'alpha'])).toBe(-1)
  expect(constantTimeIndexOf('alpha', [])).toBe(-1)
})

test('compares code units: no folding of case, accents or width', () => {
  expect(constantTimeIndexOf('p\u00e4ss\u{1f511}', ['p\u00e4ss\u{1f511}'])).toBe(0)
  expect(constantTimeIndexOf('a\u0308', ['\u00e4x'])).toBe(-1)
  // Same low byte, so a comparison of bytes of a narrowed string would take them for equal.
  expect(constantTimeIndexOf('\u0161', ['\u0061'])).toBe(-1)
  expect(constantTimeIndexOf('\uffff', ['\u0000'])).toBe(-1)
  expect(constantTimeIndexOf('\u0000', ['\uffff', '\u0000'])).toBe(1)
})

test('one bit of difference is enough, at every position and in every bit', () => {
  const secret = randomBytes(24).toString('latin1')
  for (let position = 0; position < secret.length; position++) {
    for (let bit = 0; bit < 16; bit++) {
      const other = secret.slice(0, position) + String.fromCharCode(secret.charCodeAt(position) ^ (1 << bit)) + secret.slice(position + 1)
      expect(constantTimeIndexOf(other, [secret])).toBe(-1)
    }
  }
})

test('values up to the limit are compared, longer ones are refused without looking at them', () => {
  const longest = 'x'.repeat(MAX_CREDENTIAL_LENGTH)
  const tooLong = `${longest}x`
  expect(constantTimeIndexOf(longest, [longest])).toBe(0)
  const read = vi.spyOn(String.prototype, 'charCodeAt')
  const found = constantTimeIndexOf(tooLong, [tooLong])
  const reads = read.mock.calls.length
  read.mockRestore()
  expect(found).toBe(-1)
  expect(reads).toBe(0)
})

/** How many candidates and how many code units one call looks at. */
function work(value: string, candidates: readonly string[]): { visited: number; unitsRead: number } {
  let visited = 0
  const counted = new Proxy(candidates, {
    get(list, property) {
      if (typeof property === 'string' && /^\d+$/.test(property)) visited++
      return Reflect.get(list, property)
    }
  })
  const read = vi.spyOn(String.prototype, 'charCodeAt')
  constantTimeIndexOf(value, counted)
  const unitsRead = read.mock.calls.length
  read.mockRestore()
  return { visited, unitsRead }
}

test('the work depends on lengths alone: not on which candidate matches, nor on where a difference stands', () => {
  const candidates = ['first-secret', 'other-secret', 'third-secret', 'short', 'a-very-much-longer-secret']
  const expected = { visited: 5, unitsRead: 3 * 12 * 2 }
  for (const value of ['first-secret', 'third-secret', 'Xirst-secret', 'first-secreX', 'other-XXXXXX', '____________']) expect(work(value, candidates)).toEqual(expected)
  for (const value of ['short', 'Xhort', 'shorX']) expect(work(value, candidates)).toEqual({ visited: 5, unitsRead: 5 * 2 })
  expect(work('nobody-has-this-length', candidates)).toEqual({ visited: 5, unitsRead: 0 })
})

test('agrees with indexOf on random values', () => {
  for (let round = 0; round < 300; round++) {
    const candidates = [...new Set(Array.from({ length: 1 + (round % 20) }, () => randomBytes(1 + (round % 3)).toString('hex')))]
    const value = round % 2 === 0 ? (candidates[round % candidates.length] as string) : randomBytes(1 + (round % 3)).toString('hex')
    expect(constantTimeIndexOf(value, candidates)).toBe(candidates.indexOf(value))
  }
})
