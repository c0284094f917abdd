import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { rawExchange } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { createHeaders, type Handler, ProxyError, type ProxyResponse, WholeBody } from '../src/index.ts'
import { toNode } from '../src/node.ts'
import { fields } from './adapter-suite.ts'
import { ask, oneConnection, open, settle } from './client.ts'
import { onServer } from './hosts.ts'
import { FlowingSource, ManualSource, pattern } from './sources.ts'

const broken = (status = 502) => new ProxyError('secret', { code: 'GONE', status, source: 'upstream', proxyStatus: 'connection_terminated' })
const settled: ProxyResponse = { status: 200, headers: createHeaders(), body: null }

/** Serves what `answer` gives, but /settle, which the clients use to let time pass. */
const serving = (answer: (target: string) => ProxyResponse): Handler => {
  return async ({ target }) => (target === '/settle' ? { ...settled, headers: createHeaders() } : answer(target))
}

/** The answer to one GET as text, to the end of the connection. */
const get = async (port: number, version = '1.1', more = 'Connection: close\r\n'): Promise<string> => (await rawExchange(port, `GET / HTTP/${version}\r\nHost: a\r\n${more}\r\n`)).toString('latin1')

describe('a body that breaks', () => {
  test('while it starts: the client is told so', async () => {
    for (const status of [502, 504]) {
      const source = new ManualSource((sink) => {
        sink.data(pattern(10))
        sink.error(broken(status))
      })
      await onServer(toNode(serving(() => ({ status: 200, headers: fields({ 'set-cookie': 'a=1' }), body: source }))), async (port) => {
        const answer = await ask(port)
        expect([answer.status, answer.headers['proxy-status'], answer.headers['set-cookie']]).toEqual([status, 'proxy; error=connection_terminated', undefined])
      })
    }
  })

  test('in the middle: no last chunk, no byte more', async () => {
    const source = new ManualSource()
    await onServer(toNode(serving(() => ({ status: 200, headers: fields(), body: source }))), async (port) => {
      const socket = await open(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
      let received = ''
      socket.on('data', (chunk) => {
        received += chunk
      })
      await source.until(({ starts }) => starts === 1)
      source.sink?.data(Buffer.from('first'))
      while (!received.includes('first')) await settle(port)
      source.sink?.error(broken())
      if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
      expect(received).toMatch(/transfer-encoding: chunked/i)
      expect(received.endsWith('\r\n5\r\nfirst\r\n')).toBe(true)
    })
  })

  test('in the middle of a known length: less than promised', async () => {
    const source = new ManualSource(undefined, 10)
    await onServer(toNode(serving(() => ({ status: 200, headers: fields(), body: source }))), async (port) => {
      const answered = ask(port)
      await source.until(({ starts }) => starts === 1)
      source.sink?.data(Buffer.from('first'))
      await settle(port)
      source.sink?.error(broken())
      await expect(answered).rejects.toMatchObject({ code: 'ECONNRESET' })
    })
  })

  test('in the middle for HTTP/1.0, where only the close ends a body: by a reset', async () => {
    const source = new ManualSource()
    await onServer(toNode(serving(() => ({ status: 200, headers: fields(), body: source }))), async (port) => {
      const socket = await open(port, 'GET / HTTP/1.0\r\n\r\n')
      await source.until(({ starts }) => starts === 1)
      source.sink?.data(Buffer.from('first'))
      await once(socket, 'data')
      const failed = new Promise((resolve) => socket.once('error', resolve))
      source.sink?.error(broken())
      expect(await failed).toMatchObject({ code: 'ECONNRESET' })
    })
  })

  test('behind another answer on its connection: that one is still sent whole', async () => {
    const first = new ManualSource()
    const second = new ManualSource()
    await onServer(toNode(serving((target) => ({ status: 200, headers: fields(), body: target === '/1' ? first : second }))), async (port) => {
      const received = rawExchange(port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
      await Promise.all([first.until(({ starts }) => starts === 1), second.until(({ starts }) => starts === 1)])
      second.sink?.data(Buffer.from('half'))
      second.sink?.error(broken())
      await settle(port)
      first.sink?.data(Buffer.from('whole'))
      first.sink?.end()
      expect(String(await received)).toMatch(/5\r\nwhole\r\n0\r\n\r\n$/)
    })
  })
})

describe('an answer that waits behind others on its connection', () => {
  test('is given up when the client leaves, begun or not, however many there are', async () => {
    const begun = new ManualSource()
    const late = new ManualSource()
    let answer: () => void = () => {}
    const warnings: unknown[] = []
    const warn = (warning: unknown) => warnings.push(warning)
    process.on('warning', warn)
    const handler: Handler = async ({ target, signal }) => {
      if (target === '/first' || signal.aborted) return new Promise(() => {})
      if (target === '/begun') return { status: 200, headers: createHeaders(), body: begun }
      if (target === '/late')
        await new Promise<void>((resolve) => {
          answer = resolve
        })
      return { status: 200, headers: createHeaders(), body: target === '/late' ? late : null }
    }
    await onServer(toNode(handler), async (port) => {
      const targets = ['/first', ...Array.from({ length: 30 }, () => '/more'), '/begun', '/late']
      const socket = await open(port, targets.map((target) => `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`).join(''))
      await begun.until(({ starts }) => starts === 1)
      begun.sink?.data(pattern(10))
      socket.destroy()
      await begun.until(({ aborts }) => aborts === 1)
      answer()
      await late.until(({ discards }) => discards === 1)
      expect([begun.aborts, late.starts]).toEqual([1, 0])
    })
    process.off('warning', warn)
    expect(warnings).toEqual([])
  })
})

describe('a head that cannot be sent', () => {
  const heads: [string, ProxyResponse][] = [
    ['a line break in a value', { status: 200, headers: fields({ 'set-cookie': 'a=1', 'x-bad': 'a\r\nb' }), body: new WholeBody('x') }],
    ['a character beyond latin1', { status: 200, headers: fields({ 'set-cookie': 'a=1', 'x-bad': '\u4e16' }), body: new WholeBody('x') }],
    ['a space in a name', { status: 200, headers: fields({ 'set-cookie': 'a=1', 'x bad': 'a' }), body: new WholeBody('x') }],
    ['a body-less status', { status: 304, headers: fields({ 'set-cookie': 'a=1', 'x-bad': '\0' }), body: null }],
    ['no content', { status: 204, headers: fields({ 'set-cookie': 'a=1', 'x-bad': '\0' }), body: null }],
    ['a status that is none', { status: 0, headers: fields(), body: null }],
    ['a status beyond all', { status: 1000, headers: fields(), body: new WholeBody('x') }],
    ['a status that is not final', { status: 101, headers: fields(), body: null }],
    ['a status that is no number', { status: Number.NaN, headers: fields(), body: new WholeBody('x') }],
    ['two lengths', { status: 200, headers: fields({ 'content-length': ['1', '2'] }), body: new ManualSource((sink) => sink.data(Buffer.from('x'))) }],
    ['a length that is no number', { status: 200, headers: fields({ 'content-length': '0x1' }), body: new ManualSource((sink) => sink.data(Buffer.from('x'))) }]
  ]
  test.each(heads)('for %s is answered with 502, and the connection goes on', async (_name, response) => {
    await onServer(toNode(serving(() => response)), async (port) => {
      const agent = oneConnection()
      const answer = await ask(port, { agent })
      expect([answer.status, answer.message, answer.headers['proxy-status']]).toEqual([502, 'Bad Gateway', 'proxy; error=http_protocol_error'])
      expect([answer.headers['x-bad'], answer.headers['set-cookie'], answer.headers.date === undefined]).toEqual([undefined, undefined, false])
      const next = await ask(port, { path: '/settle', agent })
      expect([next.status, next.localPort]).toEqual([200, answer.localPort])
      agent.destroy()
    })
  })

  test('gives its body up, once', async () => {
    const started = new ManualSource()
    const unread = new ManualSource()
    const bodies: Record<string, ManualSource> = { '/200': started, '/304': unread }
    await onServer(toNode(serving((target) => ({ status: Number(target.slice(1)), headers: fields({ 'x-bad': '\0' }), body: bodies[target] as ManualSource }))), async (port) => {
      expect((await ask(port, { path: '/200' })).status).toBe(502)
      expect((await ask(port, { path: '/304' })).status).toBe(502)
      expect([started.starts, started.aborts, started.discards]).toEqual([1, 1, 0])
      expect([unread.starts, unread.aborts, unread.discards]).toEqual([0, 0, 1])
    })
  })
})

describe('how a message is framed', () => {
  test('is decided here, whatever the fields say', async () => {
    const answers: Record<string, ProxyResponse> = {
      '/whole': { status: 200, headers: fields({ 'transfer-encoding': 'chunked' }), body: new WholeBody('whole') },
      '/stream': { status: 200, headers: fields({ 'transfer-encoding': 'gzip', 'content-length': '40000' }), body: new FlowingSource(40_000) },
      '/none': { status: 204, headers: fields({ 'transfer-encoding': 'chunked', 'content-length': '5' }), body: null }
    }
    await onServer(toNode(serving((target) => answers[target] as ProxyResponse)), async (port) => {
      const seen: unknown[] = []
      for (const path of Object.keys(answers)) {
        const { headers, body } = await ask(port, { path })
        seen.push([headers['transfer-encoding'], headers['content-length'], body.length])
      }
      expect(seen).toEqual([
        [undefined, '5', 5],
        [undefined, '40000', 40_000],
        [undefined, undefined, 0]
      ])
    })
  })

  test('of a body that was here at once has its length', async () => {
    const source = () =>
      new ManualSource((sink) => {
        sink.data(Buffer.from('ab'))
        sink.data(Buffer.from('cd'))
        sink.end()
      })
    await onServer(toNode(serving(() => ({ status: 200, headers: fields(), body: source() }))), async (port) => {
      expect(await get(port)).toMatch(/content-length: 4\r\n[\s\S]*\r\n\r\nabcd$/)
      // So that a client of HTTP/1.0 can keep its connection.
      const kept = String(await rawExchange(port, 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n', { until: 'abcd' }))
      expect(kept).toMatch(/content-length: 4\r\n[\s\S]*connection: keep-alive\r\n/i)
    })
  })

  test('for HTTP/1.0 without a length is the end of the connection', async () => {
    await onServer(toNode(serving(() => ({ status: 200, headers: fields({ trailer: 'x' }), body: new FlowingSource(50_000, { trailers: fields({ x: '1' }) }) }))), async (port) => {
      const received = await get(port, '1.0')
      expect(received).toMatch(/connection: close/i)
      expect(received).not.toMatch(/transfer-encoding|trailer/i)
      expect(received.length - received.indexOf('\r\n\r\n') - 4).toBe(50_000)
    })
  })

  test('leaves room for no other answer: a body of another length than promised is refused or cut', async () => {
    const late = { '/longer': new ManualSource(), '/shorter': new ManualSource() }
    const answers: Record<string, ProxyResponse> = {
      '/whole': { status: 200, headers: fields({ 'content-length': '6' }), body: new WholeBody('whole') },
      '/bytes': { status: 200, headers: fields({ 'content-length': '4' }), body: Buffer.from('bytes') },
      '/at-once': { status: 200, headers: fields({ 'content-length': '4' }), body: new ManualSource((sink) => sink.data(Buffer.from('source'))) },
      '/ended': {
        status: 200,
        headers: fields({ 'content-length': '7' }),
        body: new ManualSource((sink) => {
          sink.data(Buffer.from('source'))
          sink.end()
        })
      },
      '/longer': { status: 200, headers: fields({ 'content-length': '4' }), body: late['/longer'] },
      '/shorter': { status: 200, headers: fields({ 'content-length': '4' }), body: late['/shorter'] }
    }
    await onServer(toNode(serving((target) => answers[target] as ProxyResponse)), async (port) => {
      for (const path of ['/whole', '/bytes', '/at-once', '/ended']) expect([path, (await ask(port, { path })).status]).toEqual([path, 502])
      for (const path of ['/longer', '/shorter'] as const) {
        const source = late[path]
        const received = rawExchange(port, `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\nGET /settle HTTP/1.1\r\nHost: a\r\n\r\n`)
        await source.until(({ starts }) => starts === 1)
        source.sink?.data(Buffer.from('abc'))
        await settle(port)
        if (path === '/longer') expect(source.sink?.data(Buffer.from('de'))).toBe(false)
        else source.sink?.end()
        const text = String(await received)
        // Neither the byte too many nor the next answer reach the client.
        expect(text).toMatch(/content-length: 4\r\n[\s\S]*\r\n\r\nabc$/)
        expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1)
      }
      expect(late['/longer'].aborts).toBe(1)
    })
  })

  test('leaves trailers out where there can be none, and malformed ones', async () => {
    const trailers = { '/bad': { x: 'a\r\nb' }, '/length': { x: '1' } } as Record<string, Record<string, string>>
    const answer = (target: string): ProxyResponse => {
      if (target === '/whole') return { status: 200, headers: fields({ trailer: 'x' }), body: new WholeBody('whole') }
      if (target === '/304') return { status: 304, headers: fields({ trailer: 'x' }), body: null }
      return { status: 200, headers: fields({ trailer: 'x', ...(target === '/length' ? { 'content-length': '50000' } : {}) }), body: new FlowingSource(50_000, { trailers: fields(trailers[target]) }) }
    }
    await onServer(toNode(serving(answer)), async (port) => {
      expect((await ask(port, { path: '/whole' })).body.toString()).toBe('whole')
      expect((await ask(port, { path: '/304' })).status).toBe(304)
      expect((await ask(port, { path: '/bad', method: 'HEAD' })).status).toBe(200)
      for (const path of ['/bad', '/length']) {
        const { body, trailers: received, headers } = await ask(port, { path })
        expect([path, body.length, received, headers.trailer]).toEqual([path, 50_000, {}, path === '/bad' ? 'x' : undefined])
      }
    })
  })
})

describe('fields', () => {
  test('go out as the bytes they came in, Content-Disposition too', async () => {
    // UTF-8 in a file name, as many origins send it, read by node:http as latin1.
    const value = `attachment; filename="${Buffer.from('世界 ä.txt').toString('latin1')}"`
    await onServer(toNode(serving(() => ({ status: 200, headers: fields({ 'content-length': '1', 'content-disposition': value, 'x-other': value }), body: new WholeBody('x') }))), async (port) => {
      const received = await get(port)
      expect(received).toContain(`content-disposition: ${value}\r\n`)
      expect(received).toContain(`x-other: ${value}\r\n`)
    })
  })

  test('of an answer to HEAD and of a 304 describe what is not sent', async () => {
    const answer = (target: string): ProxyResponse => {
      if (target === '/304') return { status: 304, headers: fields({ 'content-length': '70' }), body: null }
      if (target === '/null') return { status: 200, headers: fields({ 'content-length': '70' }), body: null }
      return { status: 200, headers: fields(), body: new WholeBody('whole') }
    }
    await onServer(toNode(serving(answer)), async (port) => {
      const lengths: unknown[] = []
      for (const [path, method] of [
        ['/304', 'GET'],
        ['/304', 'HEAD'],
        ['/null', 'HEAD'],
        ['/null', 'GET'],
        ['/whole', 'HEAD']
      ] as const)
        lengths.push((await ask(port, { path, method })).headers['content-length'])
      expect(lengths).toEqual(['70', '70', '70', '0', '5'])
    })
  })
})

describe('what it costs', () => {
  /** Counts the calls of the methods of a response. */
  function counting(outgoing: ServerResponse): Map<string, number> {
    const calls = new Map<string, number>()
    for (const name of ['writeHead', 'write', 'end', 'setHeader', 'appendHeader', 'flushHeaders', 'on', 'once', 'getHeader', 'hasHeader'] as const) {
      const method = outgoing[name].bind(outgoing) as (...given: unknown[]) => unknown
      Object.assign(outgoing, {
        [name]: (...given: unknown[]) => {
          calls.set(name, (calls.get(name) ?? 0) + 1)
          return method(...given)
        }
      })
    }
    return calls
  }

  test('a body in memory: one head, one end', async () => {
    const counts: Map<string, number>[] = []
    const node = toNode(serving((target) => ({ status: 200, headers: fields({ etag: '"1"', vary: 'a' }), body: target === '/text' ? new WholeBody('text') : new WholeBody(pattern(100_000)) })))
    await onServer(
      (incoming, outgoing) => {
        counts.push(counting(outgoing))
        node(incoming, outgoing)
      },
      async (port) => {
        await ask(port, { path: '/text' })
        await ask(port, { path: '/bytes' })
        for (const calls of counts) {
          expect([calls.get('writeHead'), calls.get('end')]).toEqual([1, 1])
          expect([calls.get('write'), calls.get('setHeader'), calls.get('flushHeaders'), calls.get('on'), calls.get('once'), calls.get('hasHeader')]).toEqual([
            undefined,
            undefined,
            undefined,
            undefined,
            undefined,
            undefined
          ])
        }
      }
    )
  })

  test('a connection keeps no listeners of the exchanges it has seen', async () => {
    const counts = new Set<number>()
    const node = toNode(async (request) => {
      void request.signal
      return { status: 200, headers: createHeaders(), body: new FlowingSource(100_000) }
    })
    await onServer(
      (incoming, outgoing) => {
        counts.add(incoming.socket.eventNames().reduce((sum, name) => sum + incoming.socket.listenerCount(name), 0))
        node(incoming, outgoing)
      },
      async (port) => {
        const agent = oneConnection()
        for (let i = 0; i < 15; i++) await ask(port, { agent, method: i % 2 === 0 ? 'GET' : 'POST', body: 'x' })
        agent.destroy()
        expect(counts.size).toBe(1)
      }
    )
  })
})
