import { once } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createSecureServer,
  createServer,
  type Http2SecureServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session
} from 'node:http2'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { createHeaders, type Handler, ProxyError, type ProxyRequest, type ProxyResponse, readAll, WholeBody } from '../src/index.ts'
import { type ToNodeOptions, toNode } from '../src/node.ts'
import { fields } from './adapter-suite.ts'
import { certificate } from './certificate.ts'
import { mirror } from './hosts.ts'
import { FlowingSource, ManualSource, pattern } from './sources.ts'

/** Runs `use` with a client of an HTTP/2 server; over TLS, as browsers come, unless `plain`. */
async function onHttp2(handler: Handler, use: (client: ClientHttp2Session, port: number) => Promise<void>, { plain = false, ...options }: ToNodeOptions & { plain?: boolean } = {}): Promise<void> {
  const listener = toNode(handler, options) as unknown as Parameters<typeof createServer>[1]
  const server: Http2SecureServer | Http2Server = plain ? createServer(listener) : createSecureServer(certificate, listener)
  if (listener !== undefined) server.on('checkContinue', listener)
  const sessions = new Set<ServerHttp2Session>()
  server.on('session', (session: ServerHttp2Session) => sessions.add(session))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = connect(`${plain ? 'http' : 'https'}://127.0.0.1:${port}`, { rejectUnauthorized: false })
  client.on('error', () => {})
  try {
    await use(client, port)
  } finally {
    const closed = once(server, 'close')
    client.destroy()
    for (const session of sessions) session.destroy()
    server.close()
    await closed
  }
}

async function ask(
  client: ClientHttp2Session,
  headers: OutgoingHttpHeaders = {},
  body?: Uint8Array
): Promise<{ headers: IncomingHttpHeaders; body: Buffer; trailers: IncomingHttpHeaders | undefined }> {
  const stream = client.request({ ':path': '/', ...headers }, { endStream: body === undefined })
  let trailers: IncomingHttpHeaders | undefined
  stream.on('trailers', (given) => {
    trailers = given
  })
  stream.end(body)
  const [[answered], received] = await Promise.all([once(stream, 'response') as Promise<[IncomingHttpHeaders]>, buffer(stream)])
  return { headers: answered, body: received, trailers }
}

/** The code that a stream was reset with. */
const closed = (stream: ClientHttp2Stream): Promise<number> => {
  stream.on('error', () => {})
  return new Promise((resolve) => stream.once('close', () => resolve(stream.rstCode as number)))
}

describe.each([{ plain: false }, { plain: true }])('HTTP/2, plain: $plain', ({ plain }) => {
  test('a request is what the client said', async () => {
    await onHttp2(
      mirror,
      async (client, port) => {
        const answer = await ask(client, { ':method': 'POST', ':path': '/a%2Fb?c', cookie: ['a=1', 'b=2'], 'x-two': ['1', '2'], te: 'trailers' }, Buffer.from('up'))
        const seen = JSON.parse(answer.body.toString())
        expect(seen).toMatchObject({ method: 'POST', target: '/a%2Fb?c', scheme: plain ? 'http' : 'https', httpVersion: '2', remoteAddress: '127.0.0.1', body: 'up' })
        expect(seen.authority).toBe(`127.0.0.1:${port}`)
        const headers = Object.fromEntries(seen.headers)
        expect([headers.cookie, headers.te, Object.keys(headers).some((name) => name.startsWith(':'))]).toEqual(['a=1; b=2', undefined, false])
        expect(JSON.parse((await ask(client)).body.toString()).body).toBeNull()
      },
      { plain }
    )
  })

  test('an answer has all its lines, and trailers', async () => {
    const answer = (): ProxyResponse => ({
      status: 200,
      headers: fields({ 'set-cookie': ['a=1', 'b=2'], trailer: 'x-sum' }),
      body: new FlowingSource(200_000, { trailers: fields({ 'x-sum': 'abc', 'x-two': ['1', '2'] }) })
    })
    await onHttp2(
      async () => answer(),
      async (client) => {
        const { headers, body, trailers } = await ask(client)
        expect([headers[':status'], headers['set-cookie'], body.length, trailers?.['x-sum'], trailers?.['x-two']]).toEqual([200, ['a=1', 'b=2'], 200_000, 'abc', '1, 2'])
      },
      { plain }
    )
  })
})

describe('over HTTP/2', () => {
  test('fields of an HTTP/1 connection are left out', async () => {
    await onHttp2(
      async () => ({ status: 200, headers: fields({ connection: 'close', 'keep-alive': '5', 'transfer-encoding': 'chunked', upgrade: 'x', 'x-kept': '1' }), body: new WholeBody('x') }),
      async (client) => {
        const { headers, body } = await ask(client)
        expect([headers[':status'], headers['x-kept'], headers.connection, body.toString()]).toEqual([200, '1', undefined, 'x'])
      }
    )
  })

  test('failures are answered, and malformed requests', async () => {
    const done: unknown[] = []
    const handler: Handler = async ({ target }) => {
      if (target === '/head') return { status: 200, headers: fields({ 'set-cookie': 'a=1', 'x-bad': '\0' }), body: new WholeBody('x') }
      if (target === '/status') return { status: 700, headers: createHeaders(), body: new WholeBody('x') }
      throw new ProxyError('secret', { code: 'X', status: 503, source: 'upstream' })
    }
    await onHttp2(
      handler,
      async (client) => {
        const answer = await ask(client)
        expect([answer.headers[':status'], answer.body.toString()]).toEqual([503, 'Service Unavailable\n'])
        const head = await ask(client, { ':path': '/head' })
        expect([head.headers[':status'], head.headers['set-cookie'], head.body.toString()]).toEqual([502, undefined, 'Bad Gateway\n'])
        expect((await ask(client, { ':path': '/status' })).headers[':status']).toBe(502)
        for (const path of ['/a\\b', '/a#b']) expect([path, (await ask(client, { ':path': path })).headers[':status']]).toEqual([path, 400])
        expect((await ask(client, { ':authority': 'a', host: 'b' })).headers[':status']).toBe(400)
        expect((await ask(client, { ':authority': 'a', host: 'A' })).headers[':status']).toBe(503)
        expect((await ask(client, { ':method': 'HEAD' })).headers[':status']).toBe(503)
        expect(done).toEqual([503, 502, 502, 400, 400, 400, 503, 503])
      },
      { onDone: (_request, status) => done.push(status) }
    )
  })

  test('a body that breaks ends its stream with an error', async () => {
    const source = new ManualSource()
    await onHttp2(
      async () => ({ status: 200, headers: createHeaders(), body: source }),
      async (client) => {
        const stream = client.request({ ':path': '/' })
        const code = closed(stream)
        await source.until(({ starts }) => starts === 1)
        source.sink?.data(Buffer.from('half'))
        await once(stream, 'data')
        source.sink?.error(new ProxyError('secret', { code: 'GONE', status: 502, source: 'upstream' }))
        expect(await code).toBe(constants.NGHTTP2_INTERNAL_ERROR)
      }
    )
  })

  test('a client that leaves is noticed: by the body, the signal and the upload', async () => {
    const source = new ManualSource()
    const late = new ManualSource()
    const done: unknown[] = []
    const waiting: { request?: ProxyRequest; upload?: Promise<unknown>; answer?: () => void } = {}
    const handler: Handler = async (request) => {
      if (request.target === '/') return { status: 200, headers: createHeaders(), body: null }
      if (request.target === '/body') return { status: 200, headers: createHeaders(), body: source }
      waiting.request = request
      waiting.upload = readAll(request.body, 1e6).catch((error: unknown) => error)
      void request.signal
      await new Promise<void>((resolve) => {
        waiting.answer = resolve
      })
      return { status: 200, headers: createHeaders(), body: late }
    }
    await onHttp2(
      handler,
      async (client) => {
        const reading = client.request({ ':path': '/body' })
        await source.until(({ starts }) => starts === 1)
        void closed(reading)
        reading.close(constants.NGHTTP2_CANCEL)
        await source.until(({ aborts }) => aborts === 1)
        expect(source.sink?.data(Buffer.from('late'))).toBe(false)

        const sending = client.request({ ':path': '/upload', ':method': 'POST' }, { endStream: false })
        void closed(sending)
        sending.write('half')
        while (waiting.request === undefined) await ask(client)
        const left = once(waiting.request.signal, 'abort')
        sending.destroy()
        await left
        // Half an upload is not a whole one.
        expect(await waiting.upload).toMatchObject({ code: 'CLIENT_ABORTED' })
        waiting.answer?.()
        await late.until(({ discards }) => discards === 1)
        expect([late.starts, done]).toEqual([0, ['aborted', 'aborted']])
      },
      { onDone: (request, _status, outcome) => request?.target !== '/' && done.push(outcome) }
    )
  })

  test('a slow reader stops the source', async () => {
    const source = new FlowingSource(1e9)
    await onHttp2(
      async ({ target }) => (target === '/' ? { status: 200, headers: createHeaders(), body: null } : { status: 200, headers: createHeaders(), body: source }),
      async (client) => {
        const stream = client.request({ ':path': '/body' })
        void closed(stream)
        let before = -1
        while (!source.paused || before !== source.produced) {
          before = source.produced
          await ask(client)
        }
        expect(source.produced).toBeLessThan(32e6)
        stream.close(constants.NGHTTP2_CANCEL)
        await source.aborted
      }
    )
  })

  test('100 Continue is sent at the first read, and interim answers pass', async () => {
    const handler: Handler = async (request) => {
      request.onInterim?.(103, fields({ link: '</a>; rel=preload', connection: 'x' }))
      return { status: 200, headers: createHeaders(), body: await readAll(request.body, 1e6) }
    }
    await onHttp2(handler, async (client) => {
      const stream = client.request({ ':path': '/', ':method': 'POST', expect: '100-continue' }, { endStream: false })
      const interims: unknown[] = []
      stream.on('headers', (headers: IncomingHttpHeaders) => interims.push([headers[':status'], headers.link]))
      await once(stream, 'continue')
      stream.end(pattern(1000))
      expect((await buffer(stream)).equals(pattern(1000))).toBe(true)
      expect(interims).toEqual([
        [103, '</a>; rel=preload'],
        [100, undefined]
      ])
    })
  })
})
