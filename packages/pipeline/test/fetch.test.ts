import { once } from 'node:events'
import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { toFetch } from '../src/fetch.ts'
import { createHeaders, type Handler, ProxyError, type ProxyRequest, type ProxyResponse, readAll, toSource, WholeBody } from '../src/index.ts'
import { fields } from './adapter-suite.ts'
import { mirror } from './hosts.ts'
import { FlowingSource, ManualSource, pattern } from './sources.ts'

const broken = new ProxyError('secret', { code: 'GONE', status: 504, source: 'upstream', proxyStatus: 'connection_terminated' })
const answering = (response: ProxyResponse) => toFetch(async () => response)
const ok = (body: ProxyResponse['body'], headers: Record<string, string | string[]> = {}): ProxyResponse => ({ status: 200, headers: fields(headers), body })
const atOnce = (bytes: Uint8Array) =>
  new ManualSource((sink) => {
    sink.data(bytes)
    sink.end()
  })
const get = (response: ProxyResponse, method = 'GET') => answering(response)(new Request('http://a/', { method }))

/** A request body that the test feeds, as a client does that is still sending. */
function uploading(): { request: Request; controller: ReadableStreamDefaultController<Uint8Array>; cancelled: Promise<void> } {
  let controller!: ReadableStreamDefaultController<Uint8Array>
  let cancel!: () => void
  const cancelled = new Promise<void>((resolve) => {
    cancel = resolve
  })
  const stream = new ReadableStream<Uint8Array>({ start: (given) => void (controller = given), cancel })
  return { request: new Request('http://a/', { method: 'POST', body: stream, duplex: 'half' } as RequestInit), controller, cancelled }
}

describe('a web Request', () => {
  const seen = async (request: Request, remoteAddress?: string) => {
    const answer = await toFetch(mirror, remoteAddress === undefined ? {} : { remoteAddress: () => remoteAddress })(request)
    return (await answer.json()) as { headers: unknown }
  }

  test('is cut out of its URL, byte for byte', async () => {
    expect(await seen(new Request('HTTPS://Example.com:8443/a%2Fb//c?d=%20&e#f', { headers: { 'x-a': '1' } }), '192.0.2.1')).toMatchObject({
      method: 'GET',
      target: '/a%2Fb//c?d=%20&e',
      authority: 'example.com:8443',
      scheme: 'https',
      headers: [['x-a', '1']],
      remoteAddress: '192.0.2.1',
      peerAddress: '192.0.2.1',
      body: null
    })
    expect(await seen(new Request('http://a?b'))).toMatchObject({ target: '/?b', authority: 'a', scheme: 'http', remoteAddress: '' })
    expect(await seen(new Request('http://a/', { headers: { host: 'B:1' } }))).toMatchObject({ authority: 'b:1', headers: [] })
  })

  test('loses the fields of its connection, and claims', async () => {
    const headers = { connection: 'x-mine, cookie', 'x-mine': '1', cookie: 'a=1', te: 'trailers', 'x-forwarded-for': '1.1.1.1', forwarded: 'for=1', 'x-kept': '1' }
    expect((await seen(new Request('http://a/', { headers }))).headers).toEqual([
      ['cookie', 'a=1'],
      ['x-kept', '1']
    ])
  })

  test('that has no plain host is refused', async () => {
    for (const host of ['user@a', 'a/b', '']) expect((await toFetch(mirror)(new Request('http://a/', { headers: { host } }))).status).toBe(400)
  })

  test('has a body that is one, and is read once', async () => {
    const handler: Handler = async (request) => {
      const [first, second] = [request.body, request.body]
      const read = String(await readAll(first, 100))
      const again = await readAll(second, 100).then(String, (error: ProxyError) => error.code)
      return ok(new WholeBody(`${first === second} ${read} ${again}`))
    }
    expect(await (await toFetch(handler)(new Request('http://a/', { method: 'POST', body: 'up' }))).text()).toBe('true up REQUEST_BODY_USED')
  })

  test('has a body of known length where it says so', async () => {
    const handler: Handler = async (request) => ok(new WholeBody(String((request.body as { length?: number }).length)))
    const post = (headers: Record<string, string>) => toFetch(handler)(new Request('http://a/', { method: 'POST', body: 'up', headers }))
    expect([await (await post({ 'content-length': '2' })).text(), await (await post({})).text()]).toEqual(['2', 'undefined'])
  })

  test('has a body that is read no faster than it is taken', async () => {
    const { request, controller } = uploading()
    let flow: { resume(): void } | undefined
    const taken: string[] = []
    const handler: Handler = (given) =>
      new Promise((resolve) => {
        flow = toSource(given.body).start({
          data(chunk) {
            taken.push(Buffer.from(chunk).toString())
            return false
          },
          end: () => resolve(ok(null)),
          error() {}
        })
      })
    const answered = toFetch(handler)(request)
    for (const part of ['a', 'b', 'c']) controller.enqueue(Buffer.from(part))
    controller.close()
    for (const expected of [['a'], ['a', 'b'], ['a', 'b', 'c']]) {
      await new Promise((resolve) => setImmediate(resolve))
      expect(taken).toEqual(expected)
      flow?.resume()
      flow?.resume()
    }
    expect((await answered).status).toBe(200)
  })

  test('has a body that breaks off without an end to the process, read or not', async () => {
    const unread = uploading()
    const answered = toFetch(async () => ok(null))(unread.request)
    unread.controller.error(new Error('client gone'))
    expect((await answered).status).toBe(200)
    const read = uploading()
    const failed = toFetch(async (request) => ok(await readAll(request.body, 100)))(read.request)
    read.controller.enqueue(Buffer.from('half'))
    read.controller.error(new Error('client gone'))
    expect((await failed).status).toBe(500)
  })

  test('has a body that can be given up, started or not', async () => {
    const unread = uploading()
    await toFetch(async (request) => {
      ;(request.body as { discard(): void }).discard()
      return ok(null)
    })(unread.request)
    await unread.cancelled
    const read = uploading()
    await toFetch(async (request) => {
      const flow = toSource(request.body).start({ data: () => true, end() {}, error() {} })
      flow.abort()
      flow.abort()
      return ok(null)
    })(read.request)
    await read.cancelled
  })

  test('passes its signal on, and what comes too late is discarded', async () => {
    const controller = new AbortController()
    const late = new ManualSource()
    const handler: Handler = async (request) => {
      controller.abort(new Error('left'))
      expect(request.signal.aborted).toBe(true)
      return ok(late)
    }
    const answer = await toFetch(handler)(new Request('http://a/', { signal: controller.signal }))
    expect([answer.status, answer.body, late.starts, late.discards]).toEqual([499, null, 0, 1])
  })
})

describe('a web Response', () => {
  test('has the fields, and no others', async () => {
    const plain = await get(ok(new WholeBody('whole'), { etag: '"1"', connection: 'close', 'transfer-encoding': 'chunked', trailer: 'x' }))
    expect([[...plain.headers], await plain.text()]).toEqual([
      [
        ['content-length', '5'],
        ['etag', '"1"']
      ],
      'whole'
    ])
    const lines = await get(ok(Buffer.from('x'), { 'set-cookie': ['a=1', 'b=2, c'], link: ['1', '2'] }))
    expect([lines.headers.getSetCookie(), lines.headers.get('link')]).toEqual([['a=1', 'b=2, c'], '1, 2'])
  })

  test('has no body where there can be none', async () => {
    for (const [status, method] of [
      [204, 'GET'],
      [205, 'GET'],
      [304, 'GET'],
      [200, 'HEAD']
    ] as const) {
      const source = new ManualSource(undefined, 7)
      const answer = await get({ status, headers: createHeaders(), body: source }, method)
      expect([status, answer.status, answer.body, source.starts, source.discards]).toEqual([status, status, null, 0, 1])
      expect(answer.headers.get('content-length')).toBe(method === 'HEAD' ? '7' : status === 205 ? '0' : null)
    }
    expect((await get(ok(null))).headers.get('content-length')).toBe('0')
  })

  test('carries every kind of body', async () => {
    const body = pattern(300_000)
    for (const given of [new WholeBody(body), body, Readable.from([body.subarray(0, 1000), body.subarray(1000)]), atOnce(body), new FlowingSource(300_000)]) {
      const received = Buffer.from(await (await get(ok(given))).arrayBuffer())
      expect(received.length).toBe(300_000)
      if (!(given instanceof FlowingSource)) expect(received.equals(body)).toBe(true)
    }
    expect(await (await get(ok(new ManualSource((sink) => sink.end())))).text()).toBe('')
    expect(await (await get(ok(atOnce(new Uint8Array(0))))).text()).toBe('')
  })

  test('of a body with trailers is whole, without them', async () => {
    expect((await (await get(ok(new FlowingSource(50_000, { trailers: fields({ x: '1' }) })))).arrayBuffer()).byteLength).toBe(50_000)
  })

  test('stops its source while nobody reads, and gives it up when cancelled', async () => {
    const source = new FlowingSource(1e9)
    const answer = await get(ok(source))
    while (!source.paused) await new Promise((resolve) => setImmediate(resolve))
    expect(source.produced).toBeLessThan(200_000)
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader()
    for (let read = 0; read < 1e6; ) read += (await reader.read()).value?.byteLength ?? 0
    await reader.cancel()
    await source.aborted
    const produced = source.produced
    await new Promise((resolve) => setImmediate(resolve))
    expect(source.produced).toBe(produced)
  })

  test('of a body that breaks while it starts says so', async () => {
    const source = new ManualSource((sink) => {
      sink.data(Buffer.from('a'))
      sink.error(broken)
    })
    const answer = await get(ok(source, { 'set-cookie': 'a=1' }))
    expect([answer.status, answer.headers.get('proxy-status'), answer.headers.get('set-cookie'), await answer.text()]).toEqual([504, 'proxy; error=connection_terminated', null, 'Gateway Timeout\n'])
    const readable = new Readable({ read() {} })
    readable.on('error', () => {})
    readable.destroy(new Error('secret'))
    await new Promise((resolve) => readable.once('close', resolve))
    expect((await get(ok(readable))).status).toBe(502)
  })

  test('of a body that breaks later breaks too, and tells no secret', async () => {
    const source = new ManualSource()
    const answer = await get(ok(source))
    source.sink?.data(Buffer.from('half'))
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader()
    expect(Buffer.from((await reader.read()).value as Uint8Array).toString()).toBe('half')
    source.sink?.error(broken)
    const failure = (await reader.read().catch((error: unknown) => error)) as Error
    expect([failure.message, failure.cause]).toEqual(['the body broke off', broken])
    expect(source.aborts).toBe(0)
  })

  test('has a body as long as it says, or is none', async () => {
    for (const given of [new WholeBody('whole'), Buffer.from('bytes'), atOnce(Buffer.from('bytes'))])
      for (const length of ['4', '6', 'x']) expect([length, (await get(ok(given, { 'content-length': length }))).status]).toEqual([length, 502])
    const longer = new ManualSource(undefined, 3)
    const tooLong = await get(ok(longer))
    longer.sink?.data(Buffer.from('abc'))
    expect(longer.sink?.data(Buffer.from('d'))).toBe(false)
    await expect(tooLong.text()).rejects.toThrow('the body broke off')
    expect(longer.aborts).toBe(1)
    const shorter = new ManualSource(undefined, 3)
    const tooShort = await get(ok(shorter))
    shorter.sink?.data(Buffer.from('ab'))
    shorter.sink?.end()
    await expect(tooShort.text()).rejects.toThrow('the body broke off')
  })

  test('of what cannot be said is a 502, with the body given up', async () => {
    const heads: Partial<ProxyResponse>[] = [
      { headers: fields({ 'x-bad': 'a\r\nb' }) },
      { headers: fields({ 'x-bad': '\u4e16' }) },
      { headers: fields({ 'x bad': 'a' }) },
      { status: 101 },
      { status: 600 },
      { status: Number.NaN }
    ]
    for (const head of heads) {
      const source = new ManualSource()
      const answer = await get({ ...ok(source), ...head })
      expect([answer.status, answer.headers.get('proxy-status'), source.starts, source.discards]).toEqual([502, 'proxy; error=http_protocol_error', 0, 1])
    }
  })

  test('comes of whatever the handler throws', async () => {
    for (const thrown of [new Error('secret'), 'secret', undefined, Object.create(null)]) {
      const answer = await toFetch(() => {
        throw thrown
      })(new Request('http://a/'))
      expect([answer.status, await answer.text()]).toEqual([500, 'Internal Server Error\n'])
    }
    expect(() => toFetch(mirror, { proxyName: 'a b' })).toThrow(TypeError)
    const named = await toFetch(async () => Promise.reject(broken), { proxyName: 'edge' })(new Request('http://a/', { method: 'HEAD' }))
    expect([named.status, named.body, named.headers.get('proxy-status')]).toEqual([504, null, 'edge; error=connection_terminated'])
  })
})

test('a request has lazy parts, and no interim answers', async () => {
  let given: ProxyRequest | undefined
  const handler: Handler = async (request) => {
    given = request
    return ok(null)
  }
  const controller = new AbortController()
  await toFetch(handler)(new Request('http://a/', { signal: controller.signal }))
  expect([given?.onInterim, given?.httpVersion, given?.signal.aborted]).toEqual([undefined, '1.1', false])
  const left = once(given?.signal as AbortSignal, 'abort')
  controller.abort()
  await left
})
