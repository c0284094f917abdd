import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { createRequest, errorResponse } from '@proxy/pipeline'
import { expect, onTestFinished, test } from 'vitest'
import type { UpstreamOptions, UpstreamTlsOptions } from '../src/index.ts'
import { answering, failureOf, outcome, rawOrigin, testUpstream, text } from './support.ts'

const pem = (name: string): string => readFileSync(new URL(`fixtures/${name}.pem`, import.meta.url), 'utf8')
const ca = pem('authority')

interface TlsOrigin {
  readonly url: string
  readonly server: Server
  /** Names that clients asked for (SNI), one per connection. */
  readonly names: (string | false | undefined)[]
}

async function tlsOrigin(certificate: string): Promise<TlsOrigin> {
  const names: TlsOrigin['names'] = []
  const server = createServer({ cert: pem(certificate), key: pem(`${certificate}-key`) }, (request, response) => {
    const { alpnProtocol } = request.socket as TLSSocket
    response.end(JSON.stringify({ alpnProtocol, host: request.headers.host }))
  })
  server.on('secureConnection', (socket: TLSSocket & { servername?: string | false }) => names.push(socket.servername))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `https://localhost:${(server.address() as AddressInfo).port}`, server, names }
}

const reach = (origin: { url: string }, tls: UpstreamTlsOptions, options: UpstreamOptions = {}): Promise<string> => outcome(testUpstream(origin, { tls, ...options })(createRequest()))

test('a certificate of an authority that is trusted, for the name of the origin', async () => {
  const origin = await tlsOrigin('good')
  const { port } = new URL(origin.url)
  expect(await reach(origin, { ca })).toBe(`200 {"alpnProtocol":"http/1.1","host":"localhost:${port}"}`)
  expect(await reach(origin, { ca: [pem('good'), ca] })).toMatch(/^200 /)
  expect(await reach({ url: `https://127.0.0.1:${port}` }, { ca })).toMatch(/^200 /)
  // An address is not asked for by SNI.
  expect(origin.names).toEqual(['localhost', 'localhost', false])
})

test.each([
  ['of an authority that nobody knows', 'good', {}],
  ['that has expired', 'expired', { ca }],
  ['for another name', 'wrong-name', { ca }],
  ['for another name than servername', 'good', { ca, servername: 'elsewhere.test' }]
])('a certificate %s: 502, nothing is sent, and it may go elsewhere', async (_name, certificate, tls) => {
  const origin = await tlsOrigin(certificate)
  let requests = 0
  origin.server.on('request', () => requests++)
  const failure = await failureOf(testUpstream(origin, { tls })(createRequest()))
  expect(failure).toMatchObject({ status: 502, code: 'UPSTREAM_TLS', source: 'upstream', proxyStatus: 'tls_certificate_error', retryable: true })
  expect(requests).toBe(0)
  // The reason is for logs and Proxy-Status, not for the body.
  const answer = errorResponse(failure)
  expect(answer.headers['proxy-status']).toBe('proxy; error=tls_certificate_error')
  expect(await text(answer.body)).toBe('Bad Gateway\n')
})

test.each([
  ['good', {}],
  ['expired', { ca }],
  ['wrong-name', {}]
])('rejectUnauthorized false accepts any certificate: %s', async (certificate, tls) => {
  expect(await reach(await tlsOrigin(certificate), { ...tls, rejectUnauthorized: false })).toMatch(/^200 /)
})

test('servername is asked for and verified instead of the host of the origin', async () => {
  const origin = await tlsOrigin('wrong-name')
  expect(await reach(origin, { ca, servername: 'elsewhere.test' })).toMatch(/^200 /)
  expect(origin.names).toEqual(['elsewhere.test'])
})

/** undici asks for the name in the Host field, also where that is not the origin's. */
test('a Host of its own does not change whose certificate is asked for', async () => {
  const origin = await tlsOrigin('good')
  expect(await reach(origin, { ca }, { requestHeaders: { set: { host: 'elsewhere.test' } } })).toContain('"host":"elsewhere.test"')
  expect(await reach(origin, { ca, servername: 'origin.test' }, { requestHeaders: { set: { host: 'elsewhere.test' } } })).toMatch(/^200 /)
  expect(origin.names).toEqual(['localhost', 'origin.test'])
})

test('an origin that does not speak TLS: 502, no plain text', async () => {
  const origin = await rawOrigin(({ socket }) => void socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')))
  const failure = await failureOf(testUpstream(origin.url.replace('http:', 'https:'))(createRequest()))
  expect(failure).toMatchObject({ status: 502, code: 'UPSTREAM_TLS', proxyStatus: 'tls_protocol_error', retryable: true })
  expect(origin.connections.every(({ received }) => !received.includes('HTTP'))).toBe(true)
})

test('an origin that closes during the handshake', async () => {
  const origin = await rawOrigin(({ socket }) => void socket.once('data', () => socket.end()))
  expect(await failureOf(testUpstream(origin.url.replace('http:', 'https:'))(createRequest()))).toMatchObject({ status: 502, code: 'UPSTREAM_CONNECTION_LOST', retryable: true })
})

test('an origin with TLS asked in plain text', async () => {
  const origin = await tlsOrigin('good')
  expect(await reach({ url: origin.url.replace('https:', 'http:') }, {})).toMatch(/^502 UPSTREAM_(CONNECTION_LOST|PROTOCOL)$/)
})

test('connections are kept over TLS too', async () => {
  const origin = await tlsOrigin('good')
  const handler = testUpstream(origin, { tls: { ca }, connections: 1 })
  for (let i = 0; i < 5; i++) expect(await outcome(handler(createRequest({ method: i % 2 === 0 ? 'GET' : 'HEAD' })))).toMatch(/^200/)
  expect(origin.names).toHaveLength(1)
})

test.each([{ ca: 'no certificate' }, { ca: [] }, { ca: '-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n' }, { servername: '' }])('%j is refused at once', (tls) => {
  expect(() => testUpstream('https://localhost', { tls })).toThrow(TypeError)
})

test('plain HTTP knows nothing of it', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'))
  expect(await reach(origin, { ca })).toBe('200 ok')
})
