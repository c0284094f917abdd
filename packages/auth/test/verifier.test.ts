import { expect, test } from 'vitest'
import { anyOf, createApiKeyVerifier, createBasicVerifier, createBearerVerifier } from '../src/index.ts'

const bearer = createBearerVerifier({ tokens: { t1: 'alice' } })
const basic = createBasicVerifier({ rawTokens: { t1: 'bob' } })
const key = createApiKeyVerifier({ keys: { k1: 'carol' } })

test('anyOf takes whichever recognises the client, the first given before the others', () => {
  const any = anyOf(bearer, basic, key)
  expect(any.verify({ authorization: 'Bearer t1' })?.id).toBe('alice')
  expect(any.verify({ authorization: 'Basic t1' })?.id).toBe('bob')
  expect(any.verify({ 'x-api-key': 'k1' })?.id).toBe('carol')
  expect(any.verify({ authorization: 'Bearer t1', 'x-api-key': 'k1' })?.id).toBe('alice')
  expect(anyOf(key, bearer).verify({ authorization: 'Bearer t1', 'x-api-key': 'k1' })?.id).toBe('carol')
  expect(any.verify({ authorization: 'Bearer wrong', 'x-api-key': 'k1' })?.id).toBe('carol')
  expect(any.verify({ authorization: 'Bearer k1', 'x-api-key': 't1' })).toBeUndefined()
})

test('anyOf of anyOf is flat', () => {
  expect(anyOf(anyOf(bearer, anyOf(basic)), key).verifiers).toEqual([bearer, basic, key])
})

test('anyOf nothing is refused: it would let nobody in', () => {
  expect(() => anyOf()).toThrow(TypeError)
})
