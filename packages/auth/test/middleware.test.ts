import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { compose, createHeaders, createRequest, type Handler, type HeaderMap, headersFromRaw, isProxyError, type Principal, type ProxyRequest, principal, toReadable } from '@proxy/pipeline'
import { toFetch } from '@proxy/pipeline/fetch'
import { toNode } from '@proxy/pipeline/node'
import { rawExchange } from '@proxy/testing'
import { expect, test } from 'vitest'
import { type AuthenticateOptions, anyOf, authenticate, createApiKeyVerifier, createBasicVerifier, createBearerVerifier, type Verifier } from '../src/index.ts'

const bearer = createBearerVerifier({ tokens: { t1: 'alice' } })
const basic = createBasicVerifier({ users: { bob: 'pw' } })
const key = createApiKeyVerifier({ keys: { k1: 'carol' } })
const bob = `Basic ${Buffer.from('bob:pw').toString('base64')}`

/** A guarded handler and the requests that came through. */
function guard(options: AuthenticateOptions): { handler: Handler; passed: ProxyRequest[] } {
  const passed: ProxyRequest[] = []
  const handler = authenticate(options)(async (request) => {
    passed.push(request)
    return { status: 200, headers: createHeaders(), body: null }
  })
  return { handler, passed }
}

const send = (handler: Handler, fields: HeaderMap, target = '/') => handler(createRequest({ target, headers: createHeaders(fields) }))

test('a recognised client passes, with a principal and without the credential', async () => {
  const { handler, passed } = guard({ verifier: bearer })
  const request = createRequest({ method: 'POST', target: '/a?b', headers: createHeaders({ accept: 'text/html', authorization: 'Bearer t1', cookie: ['a=1', 'b=2'] }), body: Buffer.from('x') })
  expect((await handler(request)).status).toBe(200)
  const [inner] = passed
  expect(inner?.context.get(principal)).toEqual({ id: 'alice', scheme: 'bearer' })
  expect(Object.entries(inner?.headers ?? {})).toEqual([
    ['accept', 'text/html'],
    ['cookie', ['a=1', 'b=2']]
  ])
  expect([inner?.method, inner?.target, inner?.body, inner?.exchange]).toEqual([request.method, request.target, request.body, request.exchange])
  // A request is never changed.
  expect(request.headers.authorization).toBe('Bearer t1')
  expect(request.context.get(principal)).toBeUndefined()
})

test('the copied fields have no prototype, so a field named like a member of objects stays a field', async () => {
  const { handler, passed } = guard({ verifier: bearer })
  await handler(createRequest({ headers: headersFromRaw(['Authorization', 'Bearer t1', '__proto__', 'x', 'constructor', 'y']) }))
  const headers = passed[0]?.headers ?? {}
  expect(Object.keys(headers)).toEqual(['__proto__', 'constructor'])
  expect('toString' in headers).toBe(false)
})

test('the promise of next is returned as it is', () => {
  const promise = Promise.resolve({ status: 200, headers: createHeaders(), body: null })
  const handler = authenticate({ verifier: bearer })(() => promise)
  expect(send(handler, { authorization: 'Bearer t1' })).toBe(promise)
})

test('everybody else gets 401, and next is not called', async () => {
  const { handler, passed } = guard({ verifier: bearer })
  const refused: HeaderMap[] = [
    {},
    { authorization: 'Bearer t2' },
    { authorization: bob },
    { authorization: ['Bearer t1', 'Bearer t1'] },
    { authorization: `Bearer ${'x'.repeat(5000)}` },
    { 'x-api-key': 't1' }
  ]
  for (const fields of refused) {
    const response = await send(handler, fields)
    expect(response.status).toBe(401)
    expect(response.headers['cache-control']).toBe('no-store')
    expect(response.headers['content-type']).toBe('text/plain; charset=utf-8')
    expect(response.headers['content-length']).toBe('12')
    expect(String(await toReadable(response.body).toArray())).toBe('Unauthorized')
  }
  expect(passed).toEqual([])
})

test('the answer is its receiver\u2019s to change: nothing of it comes back in the next one', async () => {
  const { handler } = guard({ verifier: bearer })
  const first = await send(handler, {})
  first.headers['cache-control'] = 'public'
  delete first.headers['www-authenticate']
  const second = await send(handler, {})
  expect(second.headers['cache-control']).toBe('no-store')
  expect(second.headers['www-authenticate']).toBe('Bearer realm="proxy"')
})

test('a wrong bearer is told so, a client that sent none is not', async () => {
  const { handler } = guard({ verifier: bearer })
  const challenge = async (fields: HeaderMap) => (await send(handler, fields)).headers['www-authenticate']
  expect(await challenge({})).toBe('Bearer realm="proxy"')
  expect(await challenge({ authorization: 'Bearer t2' })).toBe('Bearer realm="proxy", error="invalid_token"')
  expect(await challenge({ authorization: 'Bearer' })).toBe('Bearer realm="proxy", error="invalid_token"')
  expect(await challenge({ authorization: ['Bearer t1', 'Bearer t1'] })).toBe('Bearer realm="proxy", error="invalid_token"')
  expect(await challenge({ authorization: bob })).toBe('Bearer realm="proxy"')
})

test('there is one challenge for every scheme, none twice', async () => {
  const other = createApiKeyVerifier({ keys: ['k2'], header: 'x-other-key' })
  const { handler } = guard({ verifiers: [bearer, basic, key, other], realm: 'images' })
  expect((await send(handler, { authorization: 'Basic x', 'x-api-key': 'k2' })).headers['www-authenticate']).toEqual([
    'Bearer realm="images"',
    'Basic realm="images", charset="UTF-8"',
    'ApiKey realm="images"'
  ])
})

test('wrong user, wrong password and nonsense get the same answer', async () => {
  const { handler } = guard({ verifier: basic })
  const answers = await Promise.all(['bob:wrong', 'eve:pw', 'nonsense'].map((text) => send(handler, { authorization: `Basic ${Buffer.from(text).toString('base64')}` })))
  expect(answers[1]).toEqual(answers[0])
  expect(answers[2]).toEqual(answers[0])
})

test('the realm is quoted, and cannot end the field', async () => {
  const { handler } = guard({ verifier: bearer, realm: 'the "best" \\ one' })
  expect((await send(handler, {})).headers['www-authenticate']).toBe('Bearer realm="the \\"best\\" \\\\ one"')
  for (const realm of ['a\r\nset-cookie: x', 'a\nb', '\u00fcber', 'a\u0000']) expect(() => authenticate({ verifier: bearer, realm })).toThrow('realm must be printable ASCII')
})

test('what was not consumed is forwarded: Authorization beside an API key', async () => {
  const { handler, passed } = guard({ verifier: key })
  await send(handler, { 'x-api-key': 'k1', authorization: 'Bearer for-the-origin' })
  expect({ ...passed[0]?.headers }).toEqual({ authorization: 'Bearer for-the-origin' })
  expect(passed[0]?.context.get(principal)?.id).toBe('carol')
})

test('of several verifiers the first names the client, and every accepted credential is removed', async () => {
  for (const options of [{ verifiers: [key, bearer] }, { verifier: anyOf(key, bearer) }, { verifiers: [anyOf(key), bearer] }] satisfies AuthenticateOptions[]) {
    const { handler, passed } = guard(options)
    await send(handler, { 'x-api-key': 'k1', authorization: 'Bearer t1', accept: '*/*' })
    await send(handler, { 'x-api-key': 'wrong', authorization: 'Bearer t1' })
    expect(passed.map((request) => request.context.get(principal)?.id)).toEqual(['carol', 'alice'])
    expect(passed.map((request) => ({ ...request.headers }))).toEqual([{ accept: '*/*' }, { 'x-api-key': 'wrong' }])
  }
})

test('forwardCredentials keeps the fields and copies nothing', async () => {
  const { handler, passed } = guard({ verifiers: [bearer, key], forwardCredentials: true })
  const headers = createHeaders({ authorization: 'Bearer t1', 'x-api-key': 'k1' })
  await handler(createRequest({ headers }))
  expect(passed[0]?.headers).toBe(headers)
  expect(passed[0]?.context.get(principal)?.id).toBe('alice')
})

test('optional lets strangers pass, but not a wrong credential', async () => {
  const { handler, passed } = guard({ verifiers: [bearer, key], optional: true })
  const stranger = createRequest()
  expect((await handler(stranger)).status).toBe(200)
  expect(passed[0]).toBe(stranger)
  expect((await send(handler, { authorization: bob })).status).toBe(200)
  expect(passed[1]?.headers.authorization).toBe(bob)
  expect(passed[1]?.context.get(principal)).toBeUndefined()
  expect((await send(handler, { authorization: 'Bearer t1' })).status).toBe(200)
  expect(passed[2]?.context.get(principal)?.id).toBe('alice')
  for (const fields of [{ authorization: 'Bearer t2' }, { authorization: 'Bearer' }, { 'x-api-key': '' }, { authorization: ['Basic x', 'Bearer t1'] }])
    expect((await send(handler, fields)).status).toBe(401)
  expect(passed.length).toBe(3)
})

test('exempt requests pass without a principal; an accepted credential is removed all the same', async () => {
  const { handler, passed } = guard({ verifier: bearer, exempt: (request) => request.target === '/health' })
  const bare = createRequest({ target: '/health' })
  await handler(bare)
  expect(passed[0]).toBe(bare)
  await send(handler, { authorization: 'Bearer t1', accept: '*/*' }, '/health')
  expect({ ...passed[1]?.headers }).toEqual({ accept: '*/*' })
  await send(handler, { authorization: 'Bearer not-ours' }, '/health')
  expect({ ...passed[2]?.headers }).toEqual({ authorization: 'Bearer not-ours' })
  for (const request of passed) expect(request.context.get(principal)).toBeUndefined()
  expect((await send(handler, {}, '/healthy')).status).toBe(401)
})

test('an exempt or a verifier that throws or is asynchronous lets nobody in', async () => {
  const failing = guard({
    verifier: bearer,
    exempt: () => {
      throw new Error('broken')
    }
  })
  await expect(send(failing.handler, { authorization: 'Bearer t1' })).rejects.toSatisfy(isProxyError)
  const lazyExempt = guard({ verifier: bearer, exempt: (async () => true) as unknown as () => boolean })
  expect((await send(lazyExempt.handler, {})).status).toBe(401)
  const lazyVerifier = { ...bearer, verify: async () => undefined } as unknown as Verifier
  const lazy = guard({ verifier: lazyVerifier })
  await expect(send(lazy.handler, {})).rejects.toSatisfy(isProxyError)
  for (const { passed } of [failing, lazyExempt, lazy]) expect(passed).toEqual([])
})

test('a verifier of one\u2019s own works like the others', async () => {
  const who: Principal = { id: 'dave', scheme: 'cookie' }
  const own: Verifier = {
    scheme: 'cookie',
    credentialHeader: 'cookie',
    verify: (headers) => (headers.cookie === 'session=1' ? who : undefined),
    hasCredential: (headers) => headers.cookie !== undefined,
    challenge: (quotedRealm) => `Cookie realm=${quotedRealm}`
  }
  const { handler, passed } = guard({ verifier: own })
  await send(handler, { cookie: 'session=1' })
  expect(passed[0]?.context.get(principal)).toBe(who)
  expect(passed[0]?.headers.cookie).toBeUndefined()
  expect((await send(handler, { cookie: 'session=2' })).headers['www-authenticate']).toBe('Cookie realm="proxy"')
})

test('two layers: both credentials are asked for and removed, the inner one names the client', async () => {
  const seen: ProxyRequest[] = []
  const handler = compose(
    authenticate({ verifier: key }),
    authenticate({ verifier: bearer })
  )(async (request) => {
    seen.push(request)
    return { status: 200, headers: createHeaders(), body: null }
  })
  expect((await send(handler, { 'x-api-key': 'k1' })).status).toBe(401)
  await send(handler, { 'x-api-key': 'k1', authorization: 'Bearer t1' })
  expect(seen.map((request) => [request.context.get(principal)?.id, Object.keys(request.headers)])).toEqual([['alice', []]])
})

test('options without a verifier, or with both spellings, are refused', () => {
  for (const options of [{}, { verifiers: [] }, { verifier: bearer, verifiers: [key] }]) expect(() => authenticate(options as unknown as AuthenticateOptions)).toThrow(TypeError)
})

test('through fetch', async () => {
  const { handler } = guard({ verifiers: [bearer, basic] })
  const fetchIt = toFetch(handler)
  const refused = await fetchIt(new Request('http://localhost/'))
  expect([refused.status, refused.headers.get('www-authenticate'), await refused.text()]).toEqual([401, 'Bearer realm="proxy", Basic realm="proxy", charset="UTF-8"', 'Unauthorized'])
  expect((await fetchIt(new Request('http://localhost/', { headers: { authorization: bob } }))).status).toBe(200)
  const twice = new Headers([
    ['authorization', 'Bearer t1'],
    ['authorization', 'Bearer t1']
  ])
  expect((await fetchIt(new Request('http://localhost/', { headers: twice }))).status).toBe(401)
})

test('through a socket: two Authorization lines are refused, though node:http alone would keep the first', async () => {
  const { handler, passed } = guard({ verifiers: [bearer, basic] })
  const server = createServer(toNode(handler)).listen(0, '127.0.0.1')
  try {
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const exchange = async (...lines: string[]) => (await rawExchange(port, ['GET / HTTP/1.1', 'Host: localhost', 'Connection: close', ...lines, '', ''].join('\r\n'))).toString('latin1')
    expect(await exchange('AUTHORIZATION: bearer  t1')).toMatch(/^HTTP\/1\.1 200 /)
    const refused = await exchange('Authorization: Bearer t1', 'Authorization: Bearer t1')
    expect(refused).toMatch(/^HTTP\/1\.1 401 /)
    expect(refused).toMatch(/\r\nwww-authenticate: Bearer realm="proxy", error="invalid_token"\r\nwww-authenticate: Basic realm="proxy", charset="UTF-8"\r\n/i)
    expect(refused.endsWith('\r\n\r\nUnauthorized')).toBe(true)
    expect(passed.length).toBe(1)
  } finally {
    server.close()
  }
})
