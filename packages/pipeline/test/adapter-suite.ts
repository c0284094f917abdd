import { once } from 'node:events'
import { request } from 'node:http'
import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { createHeaders, type Handler, type HeaderMap, ProxyError, type ProxyRequest, type ProxyResponse, readAll, toSource, WholeBody } from '../src/index.ts'
import { ask, oneConnection, open, settle } from './client.ts'
import { FlowingSource, ManualSource, pattern } from './sources.ts'

/** What every adapter is held to. */
export const cases = [
  'GET',
  'HEAD',
  '304',
  'POST of 3 MB, streamed',
  'two Set-Cookie',
  'range',
  'client abort',
  'error to status',
  'empty body',
  'chunked both ways',
  'large headers',
  'response trailers',
  'keep-alive reuse',
  'slow reader',
  'handler that throws'
] as const
export type Case = (typeof cases)[number]

export interface RunningHost {
  readonly port: number
  close(): Promise<void>
}

export interface Host {
  readonly name: string
  start(handler: Handler): Promise<RunningHost>
  /** Cases that this adapter cannot express, each with the reason. */
  readonly cannot?: Partial<Record<Case, string>>
}

export function fields(from: Record<string, string | string[]> = {}): HeaderMap {
  const headers = createHeaders()
  for (const name in from) headers[name] = from[name]
  return headers
}

const ok = (body: ProxyResponse['body'] = null, headers: Record<string, string | string[]> = {}): ProxyResponse => ({ status: 200, headers: fields(headers), body })

export function adapterSuite(host: Host): void {
  describe(host.name, () => {
    const cannot = host.cannot ?? {}
    const ran = new Set<string>()
    /** Runs one case on a host of its own. `serve` is the handler of all paths but /settle, which the clients use to let time pass. */
    const run = (name: Case, serve: Handler, body: (port: number) => Promise<void>): void => {
      if (cannot[name] !== undefined) return
      ran.add(name)
      test(name, async () => {
        const running = await host.start((request) => (request.target === '/settle' ? Promise.resolve(ok()) : serve(request)))
        try {
          await body(running.port)
        } finally {
          await running.close()
        }
      })
    }

    let seen: ProxyRequest | undefined
    run(
      'GET',
      async (request) => {
        seen = request
        if (request.target === '/bytes') return ok(Buffer.from('bytes'), { 'x-field': 'kept' })
        if (request.target === '/readable') return ok(Readable.from([Buffer.from('read'), Buffer.from('able')]))
        return ok(new WholeBody('text'), { 'content-type': 'image/png', etag: '"1"' })
      },
      async (port) => {
        const answer = await ask(port, { path: '/a%2Fb/c?d=%20&e', headers: { 'X-Given': 'Value' } })
        expect([answer.status, answer.body.toString()]).toEqual([200, 'text'])
        expect(answer.headers).toMatchObject({ 'content-length': '4', 'content-type': 'image/png', etag: '"1"' })
        expect(seen).toMatchObject({ method: 'GET', target: '/a%2Fb/c?d=%20&e', authority: `127.0.0.1:${port}`, scheme: 'http', httpVersion: '1.1', body: null })
        expect(seen?.headers['x-given']).toBe('Value')
        expect([seen?.headers.host, seen?.headers.connection]).toEqual([undefined, undefined])
        const bytes = await ask(port, { path: '/bytes' })
        expect([bytes.headers['content-length'], bytes.headers['content-type'], bytes.headers['x-field'], bytes.body.toString()]).toEqual(['5', undefined, 'kept', 'bytes'])
        expect((await ask(port, { path: '/readable' })).body.toString()).toBe('readable')
      }
    )

    let unread = new ManualSource()
    run(
      'HEAD',
      async (request) => {
        seen = request
        unread = new ManualSource(undefined, 70_000)
        return ok(unread, { etag: '"1"' })
      },
      async (port) => {
        const answer = await ask(port, { method: 'HEAD', path: '/x/../y' })
        expect([answer.status, answer.headers['content-length'], answer.headers.etag, answer.body.length]).toEqual([200, '70000', '"1"', 0])
        expect([seen?.method, unread.starts, unread.discards]).toEqual(['HEAD', 0, 1])
      }
    )

    run(
      '304',
      async () => {
        unread = new ManualSource(undefined, 10)
        return { status: 304, headers: fields({ etag: '"1"', 'cache-control': 'max-age=5' }), body: unread }
      },
      async (port) => {
        const answer = await ask(port, { headers: { 'if-none-match': '"1"' } })
        expect([answer.status, answer.headers.etag, answer.headers['cache-control'], answer.body.length]).toEqual([304, '"1"', 'max-age=5', 0])
        expect(answer.headers['transfer-encoding']).toBeUndefined()
        expect([unread.starts, unread.discards]).toEqual([0, 1])
      }
    )

    const upload = { chunks: [] as Buffer[], received: 0, open: (): void => {} }
    run(
      'POST of 3 MB, streamed',
      (request) =>
        new Promise((resolve, reject) => {
          let isOpen = false
          const flow = toSource(request.body).start({
            data(chunk) {
              upload.chunks.push(Buffer.from(chunk))
              upload.received += chunk.byteLength
              return isOpen
            },
            end: () => resolve(ok(new WholeBody(String(upload.received)), { 'x-length': String(request.headers['content-length']) })),
            error: reject
          })
          upload.open = () => {
            isOpen = true
            flow.resume()
          }
        }),
      async (port) => {
        const body = pattern(3_000_000)
        const answered = ask(port, { method: 'POST', body })
        // Backpressure: the client has sent what the connection takes, but the reader has said "stop" at the first chunk.
        while (upload.received === 0) await settle(port)
        await settle(port)
        expect(upload.received).toBeLessThan(300_000)
        upload.open()
        const answer = await answered
        expect([answer.body.toString(), answer.headers['x-length']]).toEqual(['3000000', '3000000'])
        expect(Buffer.concat(upload.chunks).equals(body)).toBe(true)
      }
    )

    run(
      'two Set-Cookie',
      async () => ok(new WholeBody('x'), { 'set-cookie': ['a=1; Path=/', 'b=2, c'], link: ['</1>', '</2>'], 'content-type': 'text/html' }),
      async (port) => {
        const answer = await ask(port)
        expect(answer.headers['set-cookie']).toEqual(['a=1; Path=/', 'b=2, c'])
        expect(answer.headers.link).toBe('</1>, </2>')
        expect(answer.headers['content-type']).toBe('text/html')
      }
    )

    run(
      'range',
      async (request) => {
        const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(String(request.headers.range)) ?? []
        const bytes = pattern(1000).subarray(Number(start), Number(end) + 1)
        return { status: 206, headers: fields({ 'content-range': `bytes ${start}-${end}/1000` }), body: bytes }
      },
      async (port) => {
        const answer = await ask(port, { headers: { range: 'bytes=100-299' } })
        expect([answer.status, answer.headers['content-range'], answer.headers['content-length']]).toEqual([206, 'bytes 100-299/1000', '200'])
        expect(answer.body.equals(pattern(1000).subarray(100, 300))).toBe(true)
      }
    )

    let flowing = new FlowingSource(0)
    const late = new ManualSource()
    let aborted: Promise<void> | undefined
    run(
      'client abort',
      (request) => {
        if (request.target === '/body') {
          flowing = new FlowingSource(1e9)
          return Promise.resolve(ok(flowing))
        }
        const { signal } = request
        return new Promise((resolve) => {
          aborted = new Promise((done) => {
            signal.addEventListener('abort', () => {
              // An upstream may answer all the same: what comes too late is given up.
              resolve(ok(late))
              done()
            })
          })
        })
      },
      async (port) => {
        // Before the answer has begun.
        const waiting = await open(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
        while (aborted === undefined) await settle(port)
        waiting.destroy()
        await aborted
        await late.until((source) => source.discards === 1)
        expect(late.starts).toBe(0)
        // In the middle of the body.
        const reading = await open(port, 'GET /body HTTP/1.1\r\nHost: a\r\n\r\n')
        await once(reading, 'data')
        reading.destroy()
        await flowing.aborted
      }
    )

    run(
      'error to status',
      async () => {
        throw new ProxyError('10.1.2.3 said secret', { code: 'UPSTREAM_DOWN', status: 503, source: 'upstream', proxyStatus: 'destination_unavailable', retryAfter: 6.2, cause: new Error('secret') })
      },
      async (port) => {
        const answer = await ask(port)
        expect([answer.status, answer.body.toString()]).toEqual([503, 'Service Unavailable\n'])
        expect(answer.headers).toMatchObject({ 'proxy-status': 'proxy; error=destination_unavailable', 'retry-after': '7', 'cache-control': 'no-store', 'content-type': 'text/plain; charset=utf-8' })
        expect(JSON.stringify(answer.lines)).not.toMatch(/secret|10\.1/)
        expect((await ask(port, { method: 'HEAD' })).status).toBe(503)
      }
    )

    run(
      'empty body',
      async (request) => {
        if (request.target === '/204') return { status: 204, headers: fields(), body: null }
        if (request.target === '/bytes') return ok(new Uint8Array(0))
        if (request.target === '/source') return ok(new ManualSource((sink) => sink.end()))
        if (request.target === '/readable') return ok(Readable.from([]))
        if (request.target === '/upload') return ok(new WholeBody(String((await readAll(request.body, 100)).length)))
        return ok()
      },
      async (port) => {
        for (const path of ['/', '/bytes', '/source', '/readable']) {
          const answer = await ask(port, { path })
          expect([path, answer.status, answer.body.length]).toEqual([path, 200, 0])
        }
        for (const path of ['/', '/bytes']) expect((await ask(port, { path })).headers['content-length']).toBe('0')
        const none = await ask(port, { path: '/204' })
        expect([none.status, none.headers['content-length'], none.headers['transfer-encoding']]).toEqual([204, undefined, undefined])
        expect((await ask(port, { path: '/upload', method: 'POST' })).body.toString()).toBe('0')
        expect((await ask(port, { path: '/upload', method: 'POST', headers: { 'transfer-encoding': 'chunked' } })).body.toString()).toBe('0')
      }
    )

    run(
      'chunked both ways',
      async (request) => {
        seen = request
        return ok(request.body)
      },
      async (port) => {
        const sent = request({ host: '127.0.0.1', port, method: 'POST', agent: false })
        // Each part is sent when the one before has come back: nothing on the way waits for the whole.
        sent.write('first')
        const [incoming] = (await once(sent, 'response')) as [NodeJS.ReadableStream & { headers: Record<string, string> }]
        expect(String((await once(incoming, 'data'))[0])).toBe('first')
        sent.write('second')
        expect(String((await once(incoming, 'data'))[0])).toBe('second')
        sent.end()
        await once(incoming, 'end')
        expect(incoming.headers).toMatchObject({ 'transfer-encoding': 'chunked' })
        expect([seen?.headers['content-length'], seen?.headers['transfer-encoding']]).toEqual([undefined, undefined])
      }
    )

    run(
      'large headers',
      async (request) => ok(new WholeBody('x'), { 'x-large': request.headers['x-large'] as string }),
      async (port) => {
        const value = 'v'.repeat(12_000)
        expect((await ask(port, { headers: { 'x-large': value } })).headers['x-large']).toBe(value)
      }
    )

    run(
      'response trailers',
      async () => ok(new FlowingSource(50_000, { trailers: fields({ 'x-sum': 'abc', 'content-length': '1' }) }), { trailer: 'x-sum' }),
      async (port) => {
        const answer = await ask(port)
        expect([answer.body.length, answer.headers.trailer, answer.trailers]).toEqual([50_000, 'x-sum', { 'x-sum': 'abc' }])
      }
    )

    run(
      'keep-alive reuse',
      async (request) => {
        if (request.target === '/fail') throw new ProxyError('no', { code: 'X', status: 502, source: 'upstream' })
        if (request.target === '/read') return ok(new WholeBody(String((await readAll(request.body, 1e6)).length)))
        if (request.target === '/304') return { status: 304, headers: fields(), body: null }
        if (request.target === '/stream') return ok(new FlowingSource(100_000))
        return ok(new WholeBody('hello'))
      },
      async (port) => {
        const agent = oneConnection()
        const turns = [
          { path: '/' },
          { path: '/', method: 'POST', body: 'not read' },
          { path: '/', method: 'HEAD' },
          { path: '/read', method: 'POST', body: pattern(100_000) },
          { path: '/fail' },
          { path: '/fail', method: 'POST', body: 'not read' },
          { path: '/304' },
          { path: '/stream' },
          { path: '/' }
        ]
        const statuses: number[] = []
        const ports = new Set<number>()
        for (const turn of turns) {
          const answer = await ask(port, { ...turn, agent })
          statuses.push(answer.status)
          ports.add(answer.localPort)
        }
        agent.destroy()
        expect(statuses).toEqual([200, 200, 200, 200, 502, 502, 304, 200, 200])
        expect(ports.size).toBe(1)
      }
    )

    run(
      'slow reader',
      async () => {
        flowing = new FlowingSource(1e9)
        return ok(flowing)
      },
      async (port) => {
        const socket = await open(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
        socket.pause()
        // What the kernel holds for a reader that does not read is some megabytes; the source has a thousand.
        let before = -1
        while (!flowing.paused || before !== flowing.produced) {
          before = flowing.produced
          await settle(port)
        }
        expect(flowing.produced).toBeLessThan(32e6)
        const paused = flowing.produced
        socket.resume()
        while (flowing.produced < paused + 1e6) await once(socket, 'data')
        socket.destroy()
        await flowing.aborted
      }
    )

    run(
      'handler that throws',
      (request) => {
        if (request.target === '/sync') throw new Error('secret')
        if (request.target === '/text') throw 'secret'
        if (request.target === '/bare') throw Object.create(null)
        if (request.target === '/rejects') return Promise.reject(new TypeError('secret'))
        if (request.target === '/nothing') return Promise.reject(undefined)
        return undefined as unknown as Promise<ProxyResponse>
      },
      async (port) => {
        for (const path of ['/sync', '/text', '/bare', '/rejects', '/nothing', '/undefined']) {
          const answer = await ask(port, { path })
          expect([path, answer.status, answer.body.toString(), answer.headers['proxy-status']]).toEqual([path, 500, 'Internal Server Error\n', 'proxy; error=proxy_internal_error'])
        }
      }
    )

    test('leaves out nothing but what it says, each with its reason', () => {
      for (const reason of Object.values(cannot)) expect(reason).not.toBe('')
      expect([...ran, ...Object.keys(cannot)].sort()).toEqual([...cases].sort())
      expect(ran.size).toBeGreaterThan(cases.length - 3)
    })
  })
}
