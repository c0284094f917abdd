import { once } from 'node:events'
import { createServer as createHttp2Server, connect as http2Connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { describe, expect, test } from 'vitest'
import { toHono } from '../src/hono.ts'
import { createHeaders, type Handler, ProxyError, type ProxyResponse, readAll, WholeBody } from '../src/index.ts'
import { fields } from './adapter-suite.ts'
import { ask, oneConnection, open, settle } from './client.ts'
import { mirror, onServer } from './hosts.ts'
import { FlowingSource, ManualSource } from './sources.ts'

const ok = (body: ProxyResponse['body'] = null, headers: Record<string, string> = {}): ProxyResponse => ({ status: 200, headers: fields(headers), body })

/** With both kinds of Response: the platform's, and node-server's own, which stays once it has replaced it. */
describe.each([{ overrideGlobalObjects: false }, { overrideGlobalObjects: true }])('a Hono app on node-server, $overrideGlobalObjects', (options) => {
  const onHono = (app: Hono, use: (port: number) => Promise<void>) => onServer(getRequestListener(app.fetch, options), use)

  test('has the Response it is meant to have', async () => {
    await onHono(new Hono(), async () => expect(Object.getPrototypeOf(Response) === Function.prototype).toBe(!options.overrideGlobalObjects))
  })

  test('sees each answer written once, HEAD too, also behind layers that change the response', async () => {
    const app = new Hono()
    const ends: number[] = []
    app.use(async (context, next) => {
      await next()
      ends.push(context.res.status)
      context.header('x-after', '1')
    })
    app.get(
      '/get',
      toHono(async () => ok(new WholeBody('text'), { etag: '"1"' }))
    )
    app.all(
      '/stream',
      toHono(async () => ok(new FlowingSource(100_000)))
    )
    app.all(
      '/304',
      toHono(async () => ({ status: 304, headers: createHeaders(), body: null }))
    )
    app.all(
      '/700',
      toHono(async () => ({ status: 700, headers: createHeaders(), body: null }))
    )
    app.get('/hono', (context) => context.text('hono'))
    await onHono(app, async (port) => {
      const agent = oneConnection()
      const seen: unknown[] = []
      for (const [method, path] of [
        ['GET', '/get'],
        ['HEAD', '/get'],
        ['GET', '/stream'],
        ['GET', '/304'],
        ['GET', '/700'],
        ['GET', '/hono']
      ] as const) {
        const { status, body, headers, lines } = await ask(port, { method, path, agent })
        seen.push([method, path, status, body.length, headers['content-length']])
        expect(lines.filter(([name]) => name.toLowerCase() === 'content-length').length).toBeLessThan(2)
        expect(headers['x-hono-already-sent']).toBeUndefined()
      }
      agent.destroy()
      expect(seen).toEqual([
        ['GET', '/get', 200, 4, '4'],
        ['HEAD', '/get', 200, 0, '4'],
        ['GET', '/stream', 200, 100_000, undefined],
        ['GET', '/304', 304, 0, undefined],
        ['GET', '/700', 700, 0, '0'],
        ['GET', '/hono', 200, 4, '4']
      ])
      expect(ends).toEqual([200, 200, 200, 304, 200, 200])
    })
  })

  test('gives the pipeline the raw request, for HEAD as for GET', async () => {
    const done: unknown[] = []
    const seen: unknown[] = []
    const handler: Handler = async (request) => {
      seen.push([request.method, request.target, request.remoteAddress, request.scheme])
      return ok()
    }
    const app = new Hono().all('*', toHono(handler, { trustedProxies: ['127.0.0.1'], onDone: (_request, status, outcome) => done.push([status, outcome]) }))
    await onHono(app, async (port) => {
      const headers = { 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'https' }
      await ask(port, { path: '/a/../b', headers })
      await ask(port, { method: 'HEAD', path: '/a/../b', headers })
      expect(seen).toEqual([
        ['GET', '/a/../b', '192.0.2.1', 'https'],
        ['HEAD', '/a/../b', '192.0.2.1', 'https']
      ])
      expect(done).toEqual([
        [200, 'complete'],
        [200, 'complete']
      ])
    })
  })

  test('ends its own layers when the exchange is over, not before, and when the client leaves', async () => {
    const app = new Hono()
    const source = new ManualSource()
    let over = 0
    app.use(async (_context, next) => {
      await next()
      over++
    })
    app.get('/settle', (context) => context.text(''))
    app.all(
      '*',
      toHono(async () => ok(source))
    )
    await onHono(app, async (port) => {
      const socket = await open(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
      await source.until(({ starts }) => starts === 1)
      const before = over
      await ask(port, { path: '/settle' })
      expect(over).toBe(before + 1)
      socket.destroy()
      await source.until(({ aborts }) => aborts === 1)
      await ask(port, { path: '/settle' })
      expect(over).toBe(before + 3)
    })
  })

  test('does not wait for a client that left before the pipeline was reached', async () => {
    const late = new ManualSource()
    let goOn: () => void = () => {}
    let over: (() => void) | undefined
    const app = new Hono()
    app.get('/settle', (context) => context.text(''))
    app.use(async (_context, next) => {
      await new Promise<void>((resolve) => {
        goOn = resolve
      })
      await next()
      over?.()
    })
    app.all(
      '*',
      toHono(async () => ok(late))
    )
    await onHono(app, async (port) => {
      const socket = await open(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
      await settle(port)
      const ended = new Promise<void>((resolve) => {
        over = resolve
      })
      socket.destroy()
      await settle(port)
      goOn()
      await ended
      expect([late.starts, late.discards]).toEqual([0, 1])
    })
  })

  test('that has read the body leaves none: a failure, not an empty upload', async () => {
    const app = new Hono().post(
      '*',
      async (context, next) => {
        await context.req.text()
        await next()
      },
      toHono(async (request) => ok(await readAll(request.body, 100)))
    )
    await onHono(app, async (port) => {
      expect((await ask(port, { method: 'POST', body: 'up' })).status).toBe(500)
    })
  })
})

test('on a host that is not Node, it is web all the way', async () => {
  const app = new Hono().all('/img/*', toHono(mirror, { proxyName: 'edge' })).all(
    '/fail',
    toHono(
      async () => {
        throw new ProxyError('secret', { code: 'X', status: 503, source: 'upstream', proxyStatus: 'destination_unavailable' })
      },
      { proxyName: 'edge' }
    )
  )
  expect(await (await app.request('http://a/img/1?x', { method: 'POST', body: 'up' })).json()).toMatchObject({ method: 'POST', target: '/img/1?x', authority: 'a', body: 'up' })
  expect((await app.request('http://a/fail')).headers.get('proxy-status')).toBe('edge; error=destination_unavailable')
})

test('over HTTP/2 the answer is written directly too', async () => {
  const app = new Hono().all(
    '*',
    toHono(async (request) => ok(new WholeBody(`${request.httpVersion} ${String(await readAll(request.body, 100))}`)))
  )
  const server = createHttp2Server()
  const listener = getRequestListener(app.fetch)
  server.on('request', (incoming, outgoing) => void listener(incoming, outgoing))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = http2Connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  const stream = client.request({ ':method': 'POST' })
  stream.end('up')
  expect((await buffer(stream)).toString()).toBe('2 up')
  client.close()
  server.close()
  await once(server, 'close')
})
