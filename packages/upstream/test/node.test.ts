import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Agent, createServer, type IncomingMessage, type RequestListener, request, type ServerResponse } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { finished } from 'node:stream/promises'
import { type SendOutcome, type ToNodeOptions, toNode } from '@proxy/pipeline/node'
import { rawExchange, startOrigin } from '@proxy/testing'
import { expect, onTestFinished, test } from 'vitest'
import type { UpstreamOptions } from '../src/index.ts'
import { answering, closedPort, rawOrigin, testUpstream } from './support.ts'

const MB = 1_000_000
const sha = (data: Buffer): string => createHash('sha256').update(data).digest('hex')

/** client <-> toNode(upstream()) <-> origin. Returns the port of the proxy. */
async function proxyTo(origin: { url: string }, options: UpstreamOptions = {}, nodeOptions: ToNodeOptions = {}): Promise<number> {
  const server = createServer(toNode(testUpstream(origin, options), nodeOptions))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

/** A node:http origin, and how many connections it has seen. */
async function nodeOrigin(listener: RequestListener): Promise<{ url: string; connections: number; open: () => Promise<number> }> {
  const server = createServer(listener)
  const origin = {
    url: '',
    connections: 0,
    open: () => new Promise<number>((resolve, reject) => server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))))
  }
  server.on('connection', () => {
    origin.connections++
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  origin.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return origin
}

async function collect(stream: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

async function send(
  port: number,
  options: { method?: string; path?: string; headers?: Record<string, string>; agent?: Agent } = {},
  body?: Buffer
): Promise<{ response: IncomingMessage; body: Buffer }> {
  const outgoing = request({ host: '127.0.0.1', port, ...options })
  outgoing.end(body)
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  return { response, body: await collect(response) }
}

test('20 MB both ways, whole', async () => {
  const data = randomBytes(20 * MB)
  const answer = randomBytes(20 * MB)
  const origin = await nodeOrigin((incoming, outgoing) => {
    void collect(incoming).then((body) => {
      outgoing.setHeader('x-received', sha(body))
      outgoing.end(answer)
    })
  })
  const port = await proxyTo(origin)
  for (const headers of [{ 'content-length': String(data.length) }, { 'transfer-encoding': 'chunked' }]) {
    const { response, body } = await send(port, { method: 'POST', headers: headers as Record<string, string> }, data)
    expect(response.headers['x-received']).toBe(sha(data))
    expect(sha(body)).toBe(sha(answer))
  }
})

test('20 clients at once, every body its own', async () => {
  const bodies = new Map(Array.from({ length: 20 }, (_, index) => [`/${index}`, randomBytes(200_000 + index)]))
  const origin = await nodeOrigin((incoming, outgoing) => outgoing.end(bodies.get(incoming.url ?? '')))
  const port = await proxyTo(origin, { connections: 4, connectTimeoutMs: 20_000 })
  await Promise.all(
    [...bodies].map(async ([path, expected]) => {
      for (let i = 0; i < 5; i++) expect(sha((await send(port, { path })).body)).toBe(sha(expected))
    })
  )
  expect(origin.connections).toBeLessThanOrEqual(4)
})

test('a slow reader slows the origin down, and gets everything', async () => {
  const size = 50 * MB
  const block = Buffer.alloc(100_000, 'x')
  let produced = 0
  const origin = await nodeOrigin((_incoming, outgoing) => {
    outgoing.setHeader('content-length', size)
    const more = (): void => {
      while (produced < size) {
        produced += block.length
        if (!outgoing.write(block)) return
      }
      outgoing.end()
    }
    outgoing.on('drain', more)
    more()
  })
  const port = await proxyTo(origin)
  const outgoing = request({ host: '127.0.0.1', port }).end()
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  let before = -1
  while (before !== produced) {
    before = produced
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  // The buffers of two connections and three processes' worth of sockets, not the object.
  expect(produced).toBeLessThan(size / 2)
  expect((await collect(response)).length).toBe(size)
})

test('a client that leaves frees the connection to the origin, and is logged as such', async () => {
  let left: (() => void) | undefined
  const gone = new Promise<void>((resolve) => {
    left = resolve
  })
  const origin = await nodeOrigin((_incoming, outgoing) => {
    outgoing.on('close', () => left?.())
    outgoing.setHeader('content-length', 100 * MB)
    outgoing.write(Buffer.alloc(MB))
  })
  const done: [number, SendOutcome, string | undefined][] = []
  const port = await proxyTo(origin, {}, { onDone: (_request, status, outcome, error) => done.push([status, outcome, error?.code]) })
  const outgoing = request({ host: '127.0.0.1', port }).end()
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  await once(response, 'data')
  outgoing.destroy()
  await gone
  while (done.length === 0 || (await origin.open()) > 0) await new Promise((resolve) => setTimeout(resolve, 10))
  expect(done).toEqual([[200, 'aborted', undefined]])
})

test('a client that leaves before the answer frees the connection too', async () => {
  const origin = await rawOrigin(() => {})
  const done: [number, SendOutcome, string | undefined][] = []
  const port = await proxyTo(origin, {}, { onDone: (_request, status, outcome, error) => done.push([status, outcome, error?.code]) })
  const client = connect(port, '127.0.0.1')
  client.write('GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  while (origin.connections.length === 0) await new Promise((resolve) => setImmediate(resolve))
  await origin.connections[0]?.until('\r\n\r\n')
  client.destroy()
  await origin.allClosed()
  expect(done).toEqual([[499, 'aborted', 'CLIENT_ABORTED']])
})

test('a client that leaves during its upload: the origin sees a request that was broken off', async () => {
  const origin = await rawOrigin(() => {})
  const port = await proxyTo(origin)
  for (const framing of ['Content-Length: 100', 'Transfer-Encoding: chunked']) {
    const client = connect(port, '127.0.0.1')
    client.write(`POST / HTTP/1.1\r\nHost: h\r\n${framing}\r\n\r\n7\r\npartial\r\n`)
    const count = origin.connections.length
    while (origin.connections.length === count) await new Promise((resolve) => setImmediate(resolve))
    await origin.connections.at(-1)?.until('partial')
    client.destroy()
    await origin.allClosed()
    expect(origin.connections.at(-1)?.received).not.toContain('\r\n0\r\n\r\n')
  }
})

test('an answer before the end of the upload reaches the client', async () => {
  const origin = await rawOrigin(answering(({ socket }) => socket.write('HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 6\r\n\r\ndenied')))
  const port = await proxyTo(origin)
  const answer = await rawExchange(port, 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\nbegin', { until: 'denied' })
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n/)
  await origin.allClosed()
})

test('trailers pass', async () => {
  const origin = await nodeOrigin((_incoming, outgoing) => {
    outgoing.writeHead(200, { trailer: 'x-sum' })
    outgoing.write('hello')
    outgoing.addTrailers({ 'x-sum': '42' })
    outgoing.end()
  })
  const { response, body } = await send(await proxyTo(origin))
  expect([body.toString(), response.trailers]).toEqual(['hello', { 'x-sum': '42' }])
})

test('interim answers pass', async () => {
  const origin = await nodeOrigin((_incoming, outgoing) => {
    outgoing.writeEarlyHints({ link: '</a.css>; rel=preload' }, () => outgoing.end('ok'))
  })
  const outgoing = request({ host: '127.0.0.1', port: await proxyTo(origin) }).end()
  const [[information], [response]] = (await Promise.all([once(outgoing, 'information'), once(outgoing, 'response')])) as [[{ statusCode: number; headers: Record<string, string> }], [IncomingMessage]]
  expect([information.statusCode, information.headers.link]).toEqual([103, '</a.css>; rel=preload'])
  expect((await collect(response)).toString()).toBe('ok')
})

test('ten HEAD on one connection to the client and one to the origin, and what they say', async () => {
  const origin = await nodeOrigin((_incoming, outgoing) => {
    outgoing.setHeader('content-length', 12_345)
    outgoing.end()
  })
  const port = await proxyTo(origin)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  onTestFinished(() => agent.destroy())
  for (let i = 0; i < 10; i++) {
    const { response, body } = await send(port, { method: 'HEAD', agent })
    expect([response.statusCode, response.headers['content-length'], body.length]).toEqual([200, '12345', 0])
  }
  expect(origin.connections).toBe(1)
})

test('keep-alive: a hundred requests on one connection to the origin', async () => {
  const origin = await nodeOrigin((incoming, outgoing) => {
    incoming.resume()
    incoming.on('end', () => outgoing.end(incoming.url))
  })
  const port = await proxyTo(origin)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  onTestFinished(() => agent.destroy())
  for (let i = 0; i < 100; i++) {
    const { body } = await send(port, { path: `/${i}`, agent, ...(i % 3 === 0 && { method: 'POST' }) }, i % 3 === 0 ? Buffer.from('x') : undefined)
    expect(body.toString()).toBe(`/${i}`)
  }
  expect(origin.connections).toBe(1)
})

test('an origin that breaks off is seen as such by the client: no last chunk, no clean end', async () => {
  for (const framing of ['Content-Length: 1000', 'Transfer-Encoding: chunked']) {
    const origin = await rawOrigin(answering(({ socket }) => void socket.write(`HTTP/1.1 200 OK\r\n${framing}\r\n\r\n5\r\nhello\r\n`, () => setTimeout(() => socket.destroy(), 50))))
    const port = await proxyTo(origin)
    const answer = (await rawExchange(port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')).toString()
    expect(answer).toContain('hello')
    expect(answer).not.toContain('\r\n0\r\n\r\n')
  }
})

test('failures are answered with their status and Proxy-Status, and say nothing of the origin', async () => {
  const silent = await rawOrigin(() => {})
  const garbage = await rawOrigin(answering('hello, I am not HTTP\r\n\r\n'))
  const expected: [{ url: string }, UpstreamOptions, number, string][] = [
    [{ url: `http://127.0.0.1:${await closedPort()}` }, {}, 502, 'connection_refused'],
    [silent, { headersTimeoutMs: 50 }, 504, 'http_response_timeout'],
    [garbage, {}, 502, 'http_protocol_error']
  ]
  for (const [origin, options, status, reason] of expected) {
    const { response, body } = await send(await proxyTo(origin, options))
    expect([response.statusCode, response.headers['proxy-status']]).toEqual([status, `proxy; error=${reason}`])
    expect(`${JSON.stringify(response.headers)}${body.toString()}`).not.toContain(origin.url.slice('http://'.length))
  }
})

test('fields with bytes beyond ASCII pass as they are, in both directions', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\nX-Name: M\xfcnchen\r\nContent-Length: 2\r\n\r\nok'))
  const port = await proxyTo(origin)
  const answer = await rawExchange(port, Buffer.from('GET / HTTP/1.1\r\nHost: h\r\nX-City: K\xf6ln\r\n\r\n', 'latin1'), { until: '\r\n\r\nok' })
  expect(answer.toString('latin1')).toContain('x-name: M\xfcnchen\r\n')
  expect(origin.connections[0]?.received).toContain('x-city: K\xf6ln\r\n')
})

test('what the origin hears of a request that names hop-by-hop fields', async () => {
  const origin = await startOrigin((_incoming: IncomingMessage, outgoing: ServerResponse) => outgoing.end('ok'))
  onTestFinished(() => origin.close())
  const port = await proxyTo(origin, { via: 'p' })
  const raw =
    'GET /x HTTP/1.1\r\nHost: site.example\r\nConnection: keep-alive, X-Mine, TE\r\nX-Mine: 1\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic x\r\nUpgrade: h2c\r\nX-Forwarded-For: 203.0.113.9\r\nVia: 1.0 fred\r\nX-Yours: 2\r\n\r\n'
  await rawExchange(port, raw, { until: /ok$/ })
  const { rawHeaders } = origin.requests[0] as (typeof origin.requests)[0]
  const lines = []
  for (let i = 0; i < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`)
  expect(lines).toEqual([
    `host: 127.0.0.1:${origin.port}`,
    'connection: keep-alive',
    'via: 1.0 fred, 1.1 p',
    'x-yours: 2',
    'x-forwarded-for: 127.0.0.1',
    'x-forwarded-host: site.example',
    'x-forwarded-proto: http'
  ])
})

test('an aborted upload to an origin that reads is an error there', async () => {
  let seen: ((value: string) => void) | undefined
  const ended = new Promise<string>((resolve) => {
    seen = resolve
  })
  const origin = await nodeOrigin((incoming) => {
    incoming.resume()
    finished(incoming).then(
      () => seen?.('complete'),
      () => seen?.('aborted')
    )
  })
  const outgoing = request({ host: '127.0.0.1', port: await proxyTo(origin), method: 'POST' })
  outgoing.on('error', () => {})
  outgoing.write('partial')
  while ((await origin.open()) === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  outgoing.destroy()
  expect(await ended).toBe('aborted')
})
