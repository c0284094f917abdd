import { Context, createRequest, Exchange, type RequestInit, target, upstreamName } from '@proxy/pipeline'
import { startOrigin } from '@proxy/testing'
import { afterAll, beforeEach, expect, test } from 'vitest'
import type { UpstreamOptions } from '../src/index.ts'
import { answering, failureOf, fields, rawOrigin, testUpstream, text } from './support.ts'

const origin = await startOrigin((_request, response) => response.end('ok'))
afterAll(() => origin.close())
beforeEach(() => {
  origin.requests.length = 0
})

/** The fields that the origin gets, without those of the connection. */
async function sent(options: UpstreamOptions, request: RequestInit): Promise<string[]> {
  await text((await testUpstream(origin, options)(createRequest(request))).body)
  const { rawHeaders } = origin.requests.at(-1) as (typeof origin.requests)[0]
  const lines: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`)
  return lines.filter((line) => line !== 'connection: keep-alive')
}

const host = `host: 127.0.0.1:${origin.port}`
const forwarded = ['via: 1.1 proxy', 'x-forwarded-for: 192.0.2.7', 'x-forwarded-host: images.example', 'x-forwarded-proto: https']
const client: RequestInit = { authority: 'images.example', scheme: 'https', remoteAddress: '192.0.2.7' }

test('the method, the target as it came, the origin its own Host, and what this hop owes', async () => {
  const lines = await sent({}, { ...client, method: 'OPTIONS', target: '/a/../b;c?q=%2F&%zz', headers: fields({ accept: 'image/*' }) })
  expect(origin.requests[0]).toMatchObject({ method: 'OPTIONS', url: '/a/../b;c?q=%2F&%zz' })
  expect(lines).toEqual([host, 'accept: image/*', ...forwarded])
})

test('repeated lines stay lines, in order', async () => {
  expect(await sent({ via: false, xForwarded: false }, { headers: fields({ 'x-a': ['1', '2', '3'] }) })).toEqual([host, 'x-a: 1', 'x-a: 2', 'x-a: 3'])
})

test('values are bytes: what is beyond ASCII arrives as it came', async () => {
  expect(await sent({ via: false, xForwarded: false }, { headers: fields({ 'x-name': 'M\xfcnchen \xff\x80' }) })).toEqual([host, 'x-name: M\xfcnchen \xff\x80'])
})

test('a field called __proto__ is a field', async () => {
  expect(await sent({ via: false, xForwarded: false }, { headers: fields(JSON.parse('{"__proto__":"a","constructor":"b"}')) })).toEqual([host, '__proto__: a', 'constructor: b'])
})

test('set replaces, remove takes away, host is the Host', async () => {
  const requestHeaders = { set: { Referer: 'https://www.pixiv.net/', 'user-agent': 'Mozilla/5.0', HOST: 'i.pximg.net' }, remove: ['Cookie', 'x-secret'] }
  const headers = fields({ referer: 'https://elsewhere.example/', cookie: 'a=b', 'x-secret': ['1', '2'], accept: '*/*' })
  expect(await sent({ requestHeaders, via: false, xForwarded: false }, { headers })).toEqual(['host: i.pximg.net', 'referer: https://www.pixiv.net/', 'accept: */*', 'user-agent: Mozilla/5.0'])
})

test('clientHeaders none leaves the fields of the request itself', async () => {
  const own = {
    range: 'bytes=0-9',
    'if-none-match': '"a"',
    'if-range': '"a"',
    'cache-control': 'no-cache',
    pragma: 'no-cache',
    'x-request-id': '7',
    'content-type': 'text/plain',
    'content-range': 'bytes 0-1/2'
  }
  const headers = fields({
    ...own,
    cookie: 'a=b',
    authorization: 'Bearer x',
    'user-agent': 'curl',
    accept: '*/*',
    referer: 'x',
    'x-forwarded-for': '198.51.100.1',
    'accept-language': 'de',
    'content-length': '2'
  })
  const lines = await sent({ clientHeaders: 'none' }, { ...client, method: 'PUT', headers, body: Buffer.from('ab') })
  expect(lines.sort()).toEqual([host, ...Object.entries(own).map(([name, value]) => `${name}: ${value}`), ...forwarded, 'content-length: 2'].sort())
})

test('Via and X-Forwarded-For go on from what is there', async () => {
  const headers = fields({ via: ['1.0 a', '1.1 b'], 'x-forwarded-for': '203.0.113.9', 'x-forwarded-host': 'first.example', 'x-forwarded-proto': 'http' })
  expect(await sent({ via: 'edge-1' }, { ...client, headers })).toEqual([
    host,
    'via: 1.0 a, 1.1 b, 1.1 edge-1',
    'x-forwarded-for: 203.0.113.9, 192.0.2.7',
    'x-forwarded-host: first.example',
    'x-forwarded-proto: http'
  ])
})

test('xForwarded false tells the origin nothing about the client, also what a proxy in front said', async () => {
  const headers = fields({ 'x-forwarded-for': '203.0.113.9', 'x-forwarded-host': 'first.example', 'x-forwarded-proto': 'http' })
  expect(await sent({ xForwarded: false, via: false }, { ...client, headers })).toEqual([host])
})

test('requestIdHeader tells the origin the id of the exchange, in place of what the client said', async () => {
  const exchange = new Exchange()
  const headers = fields({ 'x-request-id': 'client' })
  const options: UpstreamOptions = { requestIdHeader: 'X-Request-Id', via: false, xForwarded: false }
  expect(await sent(options, { headers, exchange })).toEqual([host, 'x-request-id: client'])
  exchange.requestId = 'ours-1'
  expect(await sent(options, { headers, exchange })).toEqual([host, 'x-request-id: ours-1'])
  expect(await sent({ ...options, clientHeaders: 'none' }, { exchange })).toEqual([host, 'x-request-id: ours-1'])
  expect(await sent({ via: false, xForwarded: false }, { exchange })).toEqual([host])
  expect(() => testUpstream(origin, { requestIdHeader: 'x y' })).toThrow('requestIdHeader: "x y" is no field name')
})

test('a request made by the program cannot change the connection with its fields', async () => {
  const headers = fields({
    host: 'evil.example',
    connection: 'close, x-a',
    'keep-alive': 'timeout=1',
    te: 'trailers',
    'transfer-encoding': 'chunked',
    upgrade: 'h2c',
    expect: '100-continue',
    'x-a': '1'
  })
  expect(await sent({ via: false, xForwarded: false }, { headers })).toEqual([host, 'x-a: 1'])
})

test.each([
  { set: { 'content-length': '3' } },
  { set: { Connection: 'close' } },
  { set: { 'Transfer-Encoding': 'chunked' } },
  { set: { 'x y': '1' } },
  { set: { '': '1' } },
  { set: { 'x-a': '1\r\nx-b: 2' } },
  { set: { 'x-a': 'ł' } }
])('rules that cannot be followed are refused at once: %j', (requestHeaders) => {
  expect(() => testUpstream(origin, { requestHeaders: requestHeaders as { set: Record<string, string> } })).toThrow(TypeError)
})

test('bytes and no bytes as the body', async () => {
  const handler = testUpstream(origin)
  for (const [method, body] of [
    ['POST', Buffer.from('hello')],
    ['POST', null],
    ['PUT', new Uint8Array(0)],
    ['DELETE', Buffer.from('x')],
    ['GET', null]
  ] as const)
    await text((await handler(createRequest({ method, body }))).body)
  const length = ({ rawHeaders }: { rawHeaders: readonly string[] }): string | undefined => rawHeaders[rawHeaders.indexOf('content-length') + 1]
  expect(
    origin.requests.map((request) => [
      request.method,
      request.body.toString(),
      request.rawHeaders.includes('content-length') ? length(request) : null,
      request.rawHeaders.includes('transfer-encoding')
    ])
  ).toEqual([
    ['POST', 'hello', '5', false],
    ['POST', '', '0', false],
    ['PUT', '', '0', false],
    ['DELETE', 'x', '1', false],
    ['GET', '', null, false]
  ])
})

test('what undici cannot send is answered here', async () => {
  const handler = testUpstream(origin)
  for (const init of [
    { method: 'OPTIONS', target: '*' },
    { method: 'CONNECT', target: '/' }
  ])
    expect(await failureOf(handler(createRequest(init)))).toMatchObject({ status: 501, code: 'UPSTREAM_UNSUPPORTED', source: 'proxy', retryable: false })
  for (const init of [{ target: 'no-slash' }, { target: '/a b' }, { method: 'GE T' }, { headers: fields({ 'x-a': 'a\nb' }) }, { headers: fields({ 'content-length': ['1', '2'] }) }])
    expect(await failureOf(handler(createRequest(init)))).toMatchObject({ status: 500, code: 'UPSTREAM_REQUEST_INVALID', source: 'proxy', retryable: false })
  expect(origin.requests).toEqual([])
})

test('bytes that are not as many as Content-Length says are not sent', async () => {
  const failure = await failureOf(testUpstream(origin)(createRequest({ method: 'POST', headers: fields({ 'content-length': '3' }), body: Buffer.from('hello') })))
  expect(failure).toMatchObject({ status: 500, code: 'UPSTREAM_REQUEST_INVALID' })
  expect(origin.requests).toEqual([])
})

test('without an origin of its own, the request goes where a balancing layer says', async () => {
  const other = await rawOrigin(answering('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother'))
  const handler = testUpstream(undefined)
  const to = (url: string): Context => Context.empty.with(target, { origin: url, name: `target ${url === other.url ? 2 : 1}` })
  const exchange = new Exchange()
  expect(await text((await handler(createRequest({ context: to(origin.url), exchange }))).body)).toBe('ok')
  expect(exchange.get(upstreamName)).toBe('target 1')
  expect(await text((await handler(createRequest({ context: to(other.url), exchange }))).body)).toBe('other')
  expect(exchange.get(upstreamName)).toBe('target 2')
})

test('an origin of its own wins, and is named by host and port', async () => {
  const exchange = new Exchange()
  await testUpstream(`${origin.url}/`)(createRequest({ context: Context.empty.with(target, { origin: 'http://127.0.0.1:1', name: 'x' }), exchange }))
  expect(exchange.get(upstreamName)).toBe(`127.0.0.1:${origin.port}`)
})

test('no origin, or one that is none, is a fault of the configuration', async () => {
  const handler = testUpstream(undefined)
  expect(await failureOf(handler(createRequest()))).toMatchObject({ status: 500, code: 'UPSTREAM_NO_TARGET', source: 'proxy' })
  const context = Context.empty.with(target, { origin: 'http://user@h/path', name: 'x' })
  expect(await failureOf(handler(createRequest({ context })))).toMatchObject({ status: 500, code: 'UPSTREAM_NO_TARGET', source: 'proxy' })
})
