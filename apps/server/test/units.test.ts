import { describe, expect, test } from 'vitest'
import { formatDuration, parseDuration, parseSize } from '../src/config/units.ts'

describe('parseDuration', () => {
  test.each([
    ['30s', 30_000],
    ['250ms', 250],
    ['1.5h', 5_400_000],
    ['1h30m', 5_400_000],
    ['7d', 604_800_000],
    ['0s', 0]
  ])('%s is %d ms', (text, ms) => expect(parseDuration(text)).toBe(ms))

  test.each(['', '30', '30 s', '-1s', '1w', 's', '1s2', '1e3s', '99999999999999999d'])('%j is none', (text) => expect(parseDuration(text)).toBeUndefined())
})

describe('parseSize', () => {
  test.each([
    ['512B', 512],
    ['64KB', 64_000],
    ['64KiB', 65_536],
    ['1.5GiB', 1_610_612_736],
    ['1 mb', 1_000_000]
  ])('%s is %d bytes', (text, bytes) => expect(parseSize(text)).toBe(bytes))

  test.each(['', '64', '64k', '-1KB', 'KB', '1KBs', '9999999999TB'])('%j is none', (text) => expect(parseSize(text)).toBeUndefined())
})

test.each([
  [86_400_000, '1d'],
  [90_000, '90s'],
  [1500, '1500ms']
])('%d ms is written %s', (ms, text) => expect(formatDuration(ms)).toBe(text))
