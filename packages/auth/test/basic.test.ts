import { hash, randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { createBasicVerifier, type Users } from '../src/index.ts'

const encode = (text: string, encoding: BufferEncoding = 'utf8') => Buffer.from(text, encoding).toString('base64')
const basic = (text: string) => ({ authorization: `Basic ${encode(text)}` })
const sha256 = (password: string) => `sha256:${hash('sha256', password)}`

const plainUsers = { Aladdin: 'open sesame', bob: 'a:b:c' }
const hashedUsers = { Aladdin: sha256('open sesame'), bob: sha256('a:b:c').toUpperCase().replace('SHA256:', 'sha256:') }

for (const [form, users] of [
  ['plain', plainUsers],
  ['sha256', hashedUsers]
] as const) {
  const verifier = createBasicVerifier({ users })

  test(`${form} passwords: user and password together name the user`, () => {
    // The example of RFC 7617 section 2.
    expect(verifier.verify({ authorization: 'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==' })).toEqual({ id: 'Aladdin', scheme: 'basic' })
    expect(verifier.verify({ authorization: 'BASIC   QWxhZGRpbjpvcGVuIHNlc2FtZQ==' })).toEqual({ id: 'Aladdin', scheme: 'basic' })
    // Only the first colon divides.
    expect(verifier.verify(basic('bob:a:b:c'))).toEqual({ id: 'bob', scheme: 'basic' })
  })

  test(`${form} passwords: everything else is refused`, () => {
    for (const text of ['Aladdin:', 'Aladdin', ':open sesame', ':', '', 'Aladdin:open', 'aladdin:open sesame', 'bob:open sesame', 'Aladdin:a:b:c', 'Aladdin:open sesame\n', 'nobody:x'])
      expect(verifier.verify(basic(text)), text).toBeUndefined()
  })

  test(`${form} passwords: only the canonical base64 is a credential`, () => {
    const right = encode('bob:a:b:c')
    expect(right).toBe('Ym9iOmE6Yjpj')
    const padded = encode('Aladdin:open sesame')
    for (const token of [`${right}=`, padded.replace(/=+$/, ''), padded.replace('ZQ==', 'ZR=='), `${right}.`, `.${right}`, right.replace('O', '_O')])
      expect(verifier.verify({ authorization: `Basic ${token}` }), token).toBeUndefined()
  })

  test(`${form} passwords: a digest is not a password`, () => {
    expect(verifier.verify(basic(`Aladdin:${hash('sha256', 'open sesame')}`))).toBeUndefined()
    expect(verifier.verify(basic(`Aladdin:${sha256('open sesame')}`))).toBeUndefined()
  })

  test(`${form} passwords: repeated fields and over-long credentials are refused`, () => {
    const value = 'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=='
    expect(verifier.verify({ authorization: [value, value] })).toBeUndefined()
    expect(verifier.verify(basic(`Aladdin:${'x'.repeat(4000)}`))).toBeUndefined()
  })
}

for (const [form, stored] of [
  ['plain', (password: string) => password],
  ['sha256', sha256]
] as const) {
  test(`${form}: UTF-8, composed and decomposed, not Latin-1`, () => {
    const verifier = createBasicVerifier({ users: { 'Ren\u00e9': stored('p\u00e4ss\u{1f511}') } })
    const rene = { id: 'Ren\u00e9', scheme: 'basic' }
    expect(verifier.verify(basic('Ren\u00e9:p\u00e4ss\u{1f511}'))).toEqual(rene)
    expect(verifier.verify(basic('Rene\u0301:pa\u0308ss\u{1f511}'))).toEqual(rene)
    expect(verifier.verify({ authorization: `Basic ${encode('Ren\u00e9:p\u00e4ss', 'latin1')}` })).toBeUndefined()
  })
}

test('a decomposed name in the configuration is the same user as the composed one', () => {
  const verifier = createBasicVerifier({ users: { 'Rene\u0301': 'pw' } })
  expect(verifier.verify(basic('Ren\u00e9:pw'))).toEqual({ id: 'Ren\u00e9', scheme: 'basic' })
  expect(() => createBasicVerifier({ users: { 'Rene\u0301': 'pw1', 'Ren\u00e9': 'pw2' } })).toThrow('users[1] has the name of users[0]')
})

test('bytes that are no UTF-8 are not taken for the replacement character', () => {
  const verifier = createBasicVerifier({ users: { bob: sha256('\ufffd') } })
  expect(verifier.verify(basic('bob:\ufffd'))).toBeDefined()
  expect(verifier.verify({ authorization: `Basic ${Buffer.from('bob:\xff', 'latin1').toString('base64')}` })).toBeUndefined()
})

test('raw tokens are compared as they stand, beside users', () => {
  const verifier = createBasicVerifier({ users: plainUsers, rawTokens: ['dev-token-123', 'test-token-456'] })
  expect(verifier.verify({ authorization: 'Basic dev-token-123' })).toEqual({ id: `basic:${hash('sha256', 'dev-token-123').slice(0, 8)}`, scheme: 'basic' })
  expect(verifier.verify(basic('bob:a:b:c'))?.id).toBe('bob')
  expect(verifier.verify(basic('dev-token-123'))).toBeUndefined()
  expect(verifier.verify({ authorization: 'Bearer dev-token-123' })).toBeUndefined()
  expect(createBasicVerifier({ rawTokens: { 'dev-token-123': 'dev' } }).verify({ authorization: 'basic dev-token-123' })?.id).toBe('dev')
})

test('plain and digest passwords may stand side by side', () => {
  const verifier = createBasicVerifier({ users: new Map([...Object.entries(plainUsers), ['carol', sha256('long and random')]]) })
  expect(verifier.verify(basic('bob:a:b:c'))?.id).toBe('bob')
  expect(verifier.verify(basic('carol:long and random'))?.id).toBe('carol')
})

test('random users: each is found by the own password only', () => {
  for (let round = 0; round < 20; round++) {
    const users = Object.fromEntries(
      Array.from({ length: 12 }, (_, i) => [
        `user-${i}`,
        randomBytes(9)
          .toString('latin1')
          .replace(/\p{Cc}/gu, 'x')
      ])
    )
    const verifier = createBasicVerifier({ users: Object.fromEntries(Object.entries(users).map(([name, password], i) => [name, i % 2 === 0 ? password : sha256(password.normalize('NFC'))])) })
    for (const [name, password] of Object.entries(users)) {
      expect(verifier.verify(basic(`${name}:${password}`))?.id).toBe(name)
      expect(verifier.verify(basic(`${name}:${password}!`))).toBeUndefined()
      expect(verifier.verify(basic(`${name}0:${password}`))).toBeUndefined()
    }
  }
})

test('challenges in UTF-8, rejected or not', () => {
  const verifier = createBasicVerifier({ users: plainUsers })
  expect(verifier.challenge('"api"', false)).toBe('Basic realm="api", charset="UTF-8"')
  expect(verifier.challenge('"api"', true)).toBe('Basic realm="api", charset="UTF-8"')
  expect(verifier.hasCredential({ authorization: 'basic' })).toBe(true)
  expect(verifier.hasCredential({ authorization: 'Bearer x' })).toBe(false)
})

test('configuration that could never match is refused by position, without its value', () => {
  const wrong: [unknown, string][] = [
    [{}, 'users is empty'],
    [['bob:secret-pw'], 'users must be a Map or an object'],
    [{ bob: 'ok', '': 'secret-pw' }, 'the name of users[1]'],
    [{ bob: '' }, 'the password of users[0]'],
    [{ bob: 12345 }, 'the password of users[0]'],
    [{ 'secret:pw': 'x' }, 'the name of users[0] must not hold a colon'],
    [{ bob: 'secret-pw\u0007' }, 'the password of users[0]'],
    [{ bob: 'secret-pw\ud800' }, 'the password of users[0]'],
    [{ bob: 'secret-pw'.repeat(400) }, 'users[0] is longer than 4096'],
    [{ bob: 'sha256:secret-pw' }, 'the password of users[0] must be 64 hex digits']
  ]
  for (const [users, message] of wrong) {
    const make = () => createBasicVerifier({ users: users as Users })
    expect(make).toThrow(TypeError)
    expect(make).toThrow(message)
    expect(make).not.toThrow(/secret/)
  }
  expect(() => createBasicVerifier({})).toThrow('createBasicVerifier needs users or rawTokens')
  expect(() => createBasicVerifier({ users: plainUsers, rawTokens: ['fine', encode('bob:a:b:c')] })).toThrow('rawTokens[1] is what one of the users sends')
})
