import { expect, test } from 'vitest'
import { authorizationToken } from '../src/authorization.ts'

const tokenOf = (authorization: string | string[] | undefined) => authorizationToken({ authorization }, 'bearer')

test('gives the token after the scheme', () => {
  expect(tokenOf('Bearer abc')).toBe('abc')
  expect(tokenOf('bEARER   AZaz09-._~+/==')).toBe('AZaz09-._~+/==')
})

test('what is malformed never gets as far as a comparison', () => {
  for (const value of ['Bearer a b', 'Bearer a,b', 'Bearer a=b', 'Bearer =', 'Bearer ==a', 'Bearer a\t', 'Bearer \u00e4', 'Bearer a"', 'Bearer a\n', 'Bearer ', 'Bearer', ['Bearer abc', 'Bearer abc']])
    expect(tokenOf(value), JSON.stringify(value)).toBeUndefined()
})

test('nor does what is longer than 4096 characters', () => {
  expect(tokenOf(`Bearer ${'x'.repeat(4096)}`)).toHaveLength(4096)
  expect(tokenOf(`Bearer ${'x'.repeat(4097)}`)).toBeUndefined()
})
