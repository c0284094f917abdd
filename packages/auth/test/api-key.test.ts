import { hash } from 'node:crypto'
import { expect, test } from 'vitest'
import { createApiKeyVerifier } from '../src/index.ts'

const verifier = createApiKeyVerifier({ keys: ['c0ffee-7f3a', 'key with spaces'] })

test('reads x-api-key by default', () => {
  expect(verifier.scheme).toBe('api-key')
  expect(verifier.credentialHeader).toBe('x-api-key')
  expect(verifier.verify({ 'x-api-key': 'c0ffee-7f3a' })).toEqual({ id: `api-key:${hash('sha256', 'c0ffee-7f3a').slice(0, 8)}`, scheme: 'api-key' })
  expect(verifier.verify({ 'x-api-key': 'key with spaces' })).toBeDefined()
})

test('refuses other values, prefixes, repeated fields, over-long values and other fields', () => {
  for (const value of ['', 'c0ffee', 'c0ffee-7f3a ', 'C0FFEE-7F3A', 'c0ffee-7f3a, c0ffee-7f3a', 'Bearer c0ffee-7f3a', 'x'.repeat(5000), ['c0ffee-7f3a', 'c0ffee-7f3a'], []])
    expect(verifier.verify({ 'x-api-key': value })).toBeUndefined()
  expect(verifier.verify({ authorization: 'c0ffee-7f3a', 'api-key': 'c0ffee-7f3a' })).toBeUndefined()
  expect(verifier.verify({})).toBeUndefined()
})

test('reads another field where told, written in any case', () => {
  const other = createApiKeyVerifier({ keys: { k1: 'alice' }, header: 'X-Auth-Key' })
  expect(other.credentialHeader).toBe('x-auth-key')
  expect(other.verify({ 'x-auth-key': 'k1' })?.id).toBe('alice')
  expect(other.verify({ 'x-api-key': 'k1' })).toBeUndefined()
})

test('a field sent empty is a credential that was sent', () => {
  expect(verifier.hasCredential({ 'x-api-key': '' })).toBe(true)
  expect(verifier.hasCredential({ authorization: 'Bearer x' })).toBe(false)
})

test('fields that cannot carry a key are refused', () => {
  for (const header of ['', 'x api key', 'x-api-key:', 'x-\u00e4', 'x\r\ny']) expect(() => createApiKeyVerifier({ keys: ['k'], header })).toThrow('header must be a field name')
  for (const header of ['Host', 'Connection', 'proxy-authorization']) expect(() => createApiKeyVerifier({ keys: ['k'], header })).toThrow(TypeError)
})

test('keys with a space at either end are refused: no field value arrives with one', () => {
  expect(() => createApiKeyVerifier({ keys: ['ok', ' k'] })).toThrow('keys[1] must be printable ASCII')
  expect(() => createApiKeyVerifier({ keys: ['k '] })).toThrow('keys[0] must be printable ASCII')
})

test('has a challenge, as every 401 must', () => {
  expect(verifier.challenge('"api"', true)).toBe('ApiKey realm="api"')
})
