import { inspect } from 'node:util'
import { createRequest } from '@proxy/pipeline'
import { expect, test } from 'vitest'
import { CredentialTable } from '../src/credential-table.ts'
import { anyOf, authenticate, createApiKeyVerifier, createBasicVerifier, createBearerVerifier } from '../src/index.ts'

const secret = 'sUp3rSecret'
const encoded = Buffer.from(`bob:${secret}`).toString('base64')

const bearer = createBearerVerifier({ tokens: [secret] })
const basic = createBasicVerifier({ users: { bob: secret }, rawTokens: { [`${secret}-raw`]: 'raw' } })
const key = createApiKeyVerifier({ keys: { [secret]: 'alice' } })

/** Every string that printing, serialising or walking `value` brings to light. */
function shown(value: object): string {
  const walked: string[] = []
  const seen = new Set<unknown>()
  const walk = (part: unknown): void => {
    if (typeof part === 'string') walked.push(part)
    if ((typeof part !== 'object' && typeof part !== 'function') || part === null || seen.has(part)) return
    seen.add(part)
    for (const name of Reflect.ownKeys(part)) {
      walked.push(String(name))
      const property = Object.getOwnPropertyDescriptor(part, name)
      if (property !== undefined && 'value' in property) walk(property.value)
    }
    if (part instanceof Map) for (const entry of part) walk(entry)
    if (part instanceof Set) for (const entry of part) walk(entry)
  }
  walk(value)
  const printed: unknown = value
  return [String(printed), JSON.stringify(value), inspect(value, { depth: Infinity, showHidden: true, getters: true }), inspect({ ...value }, { depth: Infinity }), ...walked].join('\n')
}

test('the check itself sees secrets that are not hidden', () => {
  expect(shown({ deep: { table: new Map([[secret, 1]]) } })).toContain(secret)
})

for (const [name, value] of Object.entries({
  bearer,
  basic,
  key,
  table: new CredentialTable([secret], [{ id: 'alice', scheme: 'bearer' }]),
  any: anyOf(bearer, basic, key),
  middleware: authenticate({ verifiers: [bearer, basic, key] })
})) {
  test(`${name}: nothing that prints or walks it shows a secret`, () => {
    const output = shown(value)
    expect(output).not.toContain(secret)
    expect(output).not.toContain(encoded)
  })
}

test('principals hold no secret', () => {
  for (const principal of [
    bearer.verify({ authorization: `Bearer ${secret}` }),
    basic.verify({ authorization: `Basic ${encoded}` }),
    basic.verify({ authorization: `Basic ${secret}-raw` }),
    key.verify({ 'x-api-key': secret })
  ]) {
    expect(principal).toBeDefined()
    expect(JSON.stringify(principal)).not.toContain(secret)
  }
})

test('a 401 shows neither what was sent nor what would have been right', async () => {
  const guarded = authenticate({ verifiers: [bearer, basic, key] })(() => Promise.reject(new Error('must not be called')))
  const response = await guarded(createRequest({ headers: { authorization: 'Bearer almost-right', 'x-api-key': 'guess' } }))
  const output = inspect(response, { depth: Infinity })
  for (const text of [secret, encoded, 'almost-right', 'guess', 'alice', 'bob']) expect(output).not.toContain(text)
})
