import { hash } from 'node:crypto'
import { expect, test } from 'vitest'
import { createApiKeyVerifier, createBasicVerifier, createBearerVerifier, type Tokens, type Verifier } from '../src/index.ts'

const secret = 'Zx81-secret-value'

/** The three options that take tokens, and a request for each. */
const forms: [option: string, scheme: string, create: (tokens: Tokens) => Verifier, headersFor: (token: string) => Record<string, string>][] = [
  ['tokens', 'bearer', (tokens) => createBearerVerifier({ tokens }), (token) => ({ authorization: `Bearer ${token}` })],
  ['rawTokens', 'basic', (rawTokens) => createBasicVerifier({ rawTokens }), (token) => ({ authorization: `Basic ${token}` })],
  ['keys', 'api-key', (keys) => createApiKeyVerifier({ keys }), (token) => ({ 'x-api-key': token })]
]

function messageOf(make: () => unknown): string {
  try {
    make()
  } catch (error) {
    expect(error).toBeInstanceOf(TypeError)
    return (error as TypeError).message
  }
  throw new Error('nothing was thrown')
}

for (const [option, scheme, create, headersFor] of forms) {
  test(`${option}: a list, an object and a Map`, () => {
    expect(create([secret]).verify(headersFor(secret))).toEqual({ id: `${scheme}:${hash('sha256', secret).slice(0, 8)}`, scheme })
    expect(create({ [secret]: 'alice' }).verify(headersFor(secret))).toEqual({ id: 'alice', scheme })
    expect(create(new Map([[secret, 'alice']])).verify(headersFor(secret))).toEqual({ id: 'alice', scheme })
  })

  test(`${option}: two secrets may stand for one principal`, () => {
    const verifier = create({ old1: 'alice', new1: 'alice' })
    expect(verifier.verify(headersFor('old1'))).toEqual(verifier.verify(headersFor('new1')))
  })

  test(`${option}: secrets named like members of every object are secrets like any other`, () => {
    const verifier = create(['constructor', '__proto__', 'toString'])
    expect(verifier.verify(headersFor('__proto__'))?.scheme).toBe(scheme)
    expect(create({ alpha: 'a' }).verify(headersFor('toString'))).toBeUndefined()
  })

  test(`${option}: a principal cannot be changed by whoever receives it`, () => {
    const found = create({ [secret]: 'alice' }).verify(headersFor(secret))
    expect(Object.isFrozen(found)).toBe(true)
  })

  test(`${option}: what could never match or would reveal a secret is refused by position`, () => {
    expect(messageOf(() => create([]))).toContain(`${option} is empty`)
    expect(messageOf(() => create({}))).toContain(`${option} is empty`)
    expect(messageOf(() => create(['good', '']))).toBe(`${option}[1] is an empty string`)
    expect(messageOf(() => create(['good', secret, 'fine', secret]))).toBe(`${option}[3] repeats ${option}[1]`)
    expect(messageOf(() => create(['x'.repeat(4097)]))).toContain(`${option}[0] is longer than 4096`)
    expect(messageOf(() => create(['good', 'b\u00e4d']))).toContain(`${option}[1] must be`)
    expect(messageOf(() => create(['good', 'bad\r\nx: y']))).toContain(`${option}[1] must be`)
    expect(messageOf(() => create({ good: 'alice', [secret]: secret }))).toContain(`the principal id of ${option}[1] is one of the secrets`)
    expect(messageOf(() => create({ good: secret, [secret]: 'bob' }))).toContain(`the principal id of ${option}[0] is one of the secrets`)
    expect(messageOf(() => create({ good: '' }))).toContain(`the principal id of ${option}[0]`)
    expect(messageOf(() => create({ good: 'a\nb' }))).toContain(`the principal id of ${option}[0]`)
  })

  test(`${option}: values that plain JavaScript or YAML let through are refused too`, () => {
    expect(messageOf(() => create([42] as unknown as string[]))).toBe(`${option}[0] must be a string`)
    expect(messageOf(() => create([null] as unknown as string[]))).toBe(`${option}[0] must be a string`)
    expect(messageOf(() => create('abc' as unknown as string[]))).toContain(`${option} must be a list`)
    expect(messageOf(() => create({ good: 7 } as unknown as Tokens))).toContain(`the principal id of ${option}[0]`)
  })

  test(`${option}: no message holds a secret`, () => {
    const wrong: Tokens[] = [[secret, secret], [`${secret} \u0001`], [secret.repeat(300)], { [secret]: secret }, { [secret]: '' }, new Map([[secret, `${secret}\n`]])]
    for (const tokens of wrong) expect(messageOf(() => create(tokens))).not.toContain(secret)
  })
}

test('derived ids of different tokens differ even when the first eight digits of their digests agree', () => {
  const seen = new Map<string, string>()
  let pair: [string, string] | undefined
  for (let i = 0; pair === undefined; i++) {
    const token = `token-${i}`
    const start = hash('sha256', token).slice(0, 8)
    const other = seen.get(start)
    if (other !== undefined) pair = [other, token]
    seen.set(start, token)
  }
  const verifier = createBearerVerifier({ tokens: pair })
  const [one, two] = pair.map((token) => verifier.verify({ authorization: `Bearer ${token}` })?.id)
  expect(one).toMatch(/^bearer:[0-9a-f]{16}$/)
  expect(two).toMatch(/^bearer:[0-9a-f]{16}$/)
  expect(one).not.toBe(two)
})
