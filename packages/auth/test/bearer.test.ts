import { randomBytes, randomInt } from 'node:crypto'
import { expect, test } from 'vitest'
import { createBearerVerifier } from '../src/index.ts'

const token = 'mF_9.B5f-4.1JqM'
const verifier = createBearerVerifier({ tokens: { [token]: 'alice' } })
const alice = { id: 'alice', scheme: 'bearer' }

test('says what it reads', () => {
  expect(verifier.scheme).toBe('bearer')
  expect(verifier.credentialHeader).toBe('authorization')
})

test('accepts the token; the scheme in any case, after one or more spaces', () => {
  for (const value of [`Bearer ${token}`, `bearer ${token}`, `BEARER ${token}`, `bEaReR ${token}`, `Bearer    ${token}`]) expect(verifier.verify({ authorization: value })).toEqual(alice)
})

test('refuses whatever is not exactly scheme, spaces and token68', () => {
  const values = [
    '',
    'Bearer',
    'Bearer ',
    'Bearer    ',
    token,
    ` Bearer ${token}`,
    `Bearer\t${token}`,
    `Bearer \t${token}`,
    `Bearer ${token} `,
    `Bearer ${token},`,
    `Bearer ${token}, Bearer ${token}`,
    `Bearer ${token}\n`,
    `Bearer "${token}"`,
    `Bearer token=${token}`,
    `Bearer =${token}`,
    `Bearer${token}`,
    `Bearers ${token}`,
    `Beare\u0012 ${token}`,
    `Basic ${token}`,
    `Bearer\u00a0${token}`,
    `Bearer ${token.toLowerCase()}`,
    `Bearer ${token}x`,
    `Bearer ${token.slice(0, -1)}`
  ]
  for (const value of values) expect(verifier.verify({ authorization: value }), JSON.stringify(value)).toBeUndefined()
})

test('refuses an absent field, and a repeated one even when every line is right', () => {
  expect(verifier.verify({})).toBeUndefined()
  expect(verifier.verify({ authorization: [`Bearer ${token}`, `Bearer ${token}`] })).toBeUndefined()
  expect(verifier.verify({ authorization: [`Bearer ${token}`, 'Basic eDp5'] })).toBeUndefined()
})

test('reads no other field', () => {
  expect(verifier.verify({ 'proxy-authorization': `Bearer ${token}`, 'x-api-key': token })).toBeUndefined()
})

test('takes tokens of 4096 characters and refuses longer ones, however many spaces stand before them', () => {
  const longest = 'x'.repeat(4096)
  const long = createBearerVerifier({ tokens: [longest] })
  expect(long.verify({ authorization: `Bearer ${longest}` })).toBeDefined()
  expect(long.verify({ authorization: `Bearer ${longest}x` })).toBeUndefined()
  expect(long.verify({ authorization: `Bearer ${' '.repeat(5000)}${longest}` })).toBeDefined()
})

test('knows whether a bearer credential was sent at all', () => {
  for (const value of [`Bearer ${token}`, 'bearer', 'Bearer wrong', 'Bearer ?', ['Basic x', 'Bearer y']]) expect(verifier.hasCredential({ authorization: value })).toBe(true)
  for (const value of [undefined, '', 'Basic x', 'Bearers x', 'Bear', ['Basic x', 'Digest y']]) expect(verifier.hasCredential({ authorization: value })).toBe(false)
})

test('challenges by RFC 6750 section 3', () => {
  expect(verifier.challenge('"api"', false)).toBe('Bearer realm="api"')
  expect(verifier.challenge('"api"', true)).toBe('Bearer realm="api", error="invalid_token"')
})

test('random tokens: each finds its own principal, and no change of one finds any', () => {
  for (let round = 0; round < 50; round++) {
    const owners = new Map(Array.from({ length: randomInt(1, 40) }, (_, i) => [randomBytes(randomInt(8, 48)).toString(round % 2 === 0 ? 'base64' : 'base64url'), `client-${i}`]))
    const many = createBearerVerifier({ tokens: owners })
    for (const [value, owner] of owners) {
      expect(many.verify({ authorization: `Bearer ${value}` })?.id).toBe(owner)
      const at = randomInt(value.length)
      const changed = value.slice(0, at) + (value[at] === 'A' ? 'B' : 'A') + value.slice(at + 1)
      if (!owners.has(changed)) expect(many.verify({ authorization: `Bearer ${changed}` })).toBeUndefined()
    }
  }
})
