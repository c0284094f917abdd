import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import { createHeaders, type Handler, ProxyError, type ProxyRequest, type ProxyResponse, WholeBody } from '../src/index.ts'
import { type SendOutcome, type ToNodeOptions, toNode } from '../src/node.ts'
import { fields } from './adapter-suite.ts'
import { ask, open, settle } from './client.ts'
import { onServer } from './hosts.ts'
import { FlowingSource, ManualSource } from './sources.ts'

interface Done {
  readonly target: string | undefined
  readonly status: number
  readonly outcome: SendOutcome
  readonly code: string | undefined
}

/** Runs `use` with a server that writes down what `onDone` is told. */
async function recording(handler: Handler, use: (port: number, done: Done[]) => Promise<void>): Promise<void> {
  const done: Done[] = []
  const onDone: ToNodeOptions['onDone'] = (request, status, outcome, error) => {
    if (request?.target !== '/settle') done.push({ target: request?.target, status, outcome, code: error?.code })
  }
  const serving: Handler = (request) => (request.target === '/settle' ? Promise.resolve(ok()) : handler(request))
  await onServer(toNode(serving, { onDone }), (port) => use(port, done))
}

const ok = (body: ProxyResponse['body'] = null, headers: Record<string, string> = {}): ProxyResponse => ({ status: 200, headers: fields(headers), body })
const broken = new ProxyError('gone', { code: 'GONE', status: 502, source: 'upstream' })

describe('onDone is told once', () => {
  const answers: [string, number, SendOutcome, string | undefined, () => Promise<ProxyResponse>][] = [
    ['of a body in memory', 200, 'complete', undefined, async () => ok(new WholeBody('x'))],
    ['of no body', 200, 'complete', undefined, async () => ok()],
    ['of a body that was here at once', 200, 'complete', undefined, async () => ok(new ManualSource((sink) => sink.end()))],
    ['of a body that came in pieces', 200, 'complete', undefined, async () => ok(new FlowingSource(200_000))],
    ['of a failure that the handler threw', 502, 'complete', 'GONE', () => Promise.reject(broken)],
    ['of a handler that is broken', 500, 'complete', 'PROXY_INTERNAL', async () => (undefined as unknown as { x: { y: ProxyResponse } }).x.y],
    ['of a head that could not be sent', 502, 'complete', 'UPSTREAM_BAD_HEADERS', async () => ok(null, { 'x-bad': '\0' })],
    ['of a body that broke while it started', 502, 'complete', 'GONE', async () => ok(new ManualSource((sink) => sink.error(broken)))]
  ]
  test.each(answers)('%s', async (_name, status, outcome, code, answer) => {
    await recording(answer, async (port, done) => {
      expect((await ask(port, { path: '/x' })).status).toBe(status)
      await settle(port)
      expect(done).toEqual([{ target: '/x', status, outcome, code }])
    })
  })

  test('of a request that was refused before it became one', async () => {
    await recording(
      async () => ok(),
      async (port, done) => {
        expect((await ask(port, { path: '/a', headers: { host: 'a b' } })).status).toBe(400)
        await settle(port)
        expect(done).toEqual([{ target: undefined, status: 400, outcome: 'complete', code: 'CLIENT_BAD_REQUEST' }])
      }
    )
  })

  test('of a body that broke in the middle', async () => {
    const source = new ManualSource()
    await recording(
      async () => ok(source),
      async (port, done) => {
        const answered = ask(port, { path: '/x' })
        await source.until(({ starts }) => starts === 1)
        source.sink?.data(Buffer.from('a'))
        await settle(port)
        source.sink?.error(broken)
        await expect(answered).rejects.toBeDefined()
        await settle(port)
        expect(done).toEqual([{ target: '/x', status: 200, outcome: 'failed', code: 'GONE' }])
        expect([source.aborts, source.discards]).toEqual([0, 0])
      }
    )
  })

  test('of a client that left in the middle of the body', async () => {
    const source = new ManualSource()
    await recording(
      async () => ok(source),
      async (port, done) => {
        const socket = await open(port, 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n')
        await source.until(({ starts }) => starts === 1)
        source.sink?.data(Buffer.from('a'))
        await once(socket, 'data')
        socket.destroy()
        await source.until(({ aborts }) => aborts > 0)
        // Chunks that were under way when the client left find nobody, and harm nobody.
        expect(source.sink?.data(Buffer.from('b'))).toBe(false)
        await settle(port)
        expect(done).toEqual([{ target: '/x', status: 200, outcome: 'aborted', code: undefined }])
        expect([source.aborts, source.discards]).toEqual([1, 0])
      }
    )
  })

  test('of a client that left before the answer, which is then discarded', async () => {
    for (const late of [new ManualSource(), broken]) {
      let given: ProxyRequest | undefined
      let answer: () => void = () => {}
      await recording(
        async (request) => {
          given = request
          await new Promise<void>((resolve) => {
            answer = resolve
          })
          if (late instanceof ProxyError) throw late
          return ok(late)
        },
        async (port, done) => {
          const socket = await open(port, 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n')
          while (given === undefined) await settle(port)
          const left = once(given.signal, 'abort')
          socket.destroy()
          await left
          expect(done).toEqual([])
          answer()
          await settle(port)
          if (late instanceof ProxyError) expect(done).toEqual([{ target: '/x', status: 502, outcome: 'aborted', code: 'GONE' }])
          else {
            expect(done).toEqual([{ target: '/x', status: 200, outcome: 'aborted', code: undefined }])
            expect([late.starts, late.discards]).toEqual([0, 1])
          }
        }
      )
    }
  })

  test('of an answer where someone else has answered already', async () => {
    const done: unknown[] = []
    const node = toNode(async () => ok(new WholeBody('second')), { onDone: (_request, status, outcome, error) => done.push([status, outcome, error?.code]) })
    await onServer(
      (incoming, outgoing) => {
        outgoing.writeHead(201)
        outgoing.write('first')
        node(incoming, outgoing)
      },
      async (port) => {
        await expect(ask(port)).rejects.toMatchObject({ code: 'ECONNRESET' })
        expect(done).toEqual([[201, 'failed', 'UPSTREAM_BAD_HEADERS']])
      }
    )
  })

  test('and what it throws is a warning, not the end of the process', async () => {
    const warned = once(process, 'warning')
    const onDone = () => {
      throw new Error('a log that is full')
    }
    await onServer(
      toNode(async () => ok(new WholeBody('x')), { onDone }),
      async (port) => {
        expect((await ask(port)).body.toString()).toBe('x')
        expect((await warned)[0]).toMatchObject({ message: 'a log that is full' })
        expect((await ask(port, { path: '/#' })).status).toBe(400)
      }
    )
  })
})

describe('options', () => {
  test('that make no sense are refused at once', () => {
    expect(() => toNode(async () => ok(), { trustedProxies: ['localhost'] })).toThrow(TypeError)
    expect(() => toNode(async () => ok(), { proxyName: 'a\r\nb' })).toThrow(TypeError)
  })

  test('name the proxy, and the peers that are believed', async () => {
    const handler: Handler = async (request) => {
      if (request.target === '/') return ok(new WholeBody(`${request.remoteAddress} ${request.scheme}`))
      throw new ProxyError('x', { code: 'X', status: 504, source: 'upstream', proxyStatus: 'http_response_timeout' })
    }
    await onServer(toNode(handler, { proxyName: 'edge', trustedProxies: ['127.0.0.0/8'] }), async (port) => {
      expect((await ask(port, { headers: { 'x-forwarded-for': '192.0.2.1', 'x-forwarded-proto': 'https' } })).body.toString()).toBe('192.0.2.1 https')
      expect((await ask(port, { path: '/fail' })).headers['proxy-status']).toBe('edge; error=http_response_timeout')
    })
  })
})

test('a failure whose answer cannot be sent either ends the connection, not the process', async () => {
  const done: unknown[] = []
  const handler: Handler = async () => {
    throw new ProxyError('x', { code: 'X', status: 502, source: 'upstream', proxyStatus: 'line\r\nbreak' })
  }
  await onServer(toNode(handler, { onDone: (_request, status, outcome, error) => done.push([status, outcome, error?.code]) }), async (port) => {
    await expect(ask(port)).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(done).toEqual([[502, 'failed', 'UPSTREAM_BAD_HEADERS']])
  })
})

test('a request that is refused may be followed by anything: nothing more is read on its connection', async () => {
  let served = 0
  const handler: Handler = async () => {
    served++
    return { status: 200, headers: createHeaders(), body: null }
  }
  await onServer(toNode(handler), async (port) => {
    const socket = await open(port, 'GET /#a HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n')
    let received = ''
    socket.on('data', (chunk) => {
      received += chunk
    })
    await once(socket, 'close')
    expect(received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400'])
    expect(served).toBe(0)
  })
})
