import { PassThrough, Readable } from 'node:stream'
import { type Body, type BodySource, clientAborted, createRequest, type Flow, ProxyError, type ProxyResponse, readAll, WholeBody } from '@proxy/pipeline'
import { describe, expect, it } from 'vitest'
import { balance } from '../src/index.ts'
import { balancerOf, HandMadeBody, readBody } from './helpers.ts'

/** An answer with `body`, through the middleware. */
async function answerWith(body: Body, options: { status?: number; failureStatuses?: number[]; signal?: AbortSignal } = {}) {
  const balancer = balancerOf({ a: 1 })
  const [target] = balancer.targets
  const handler = balance({ balancer, failureStatuses: options.failureStatuses ?? [] })(() => Promise.resolve<ProxyResponse>({ status: options.status ?? 200, headers: {}, body }))
  const response = await handler(createRequest(options.signal === undefined ? {} : { signal: options.signal }))
  const lease = () => `${target?.active} held, ${target?.successes} ok, ${target?.failures} failed, ${target?.aborts} aborted`
  return { response, lease }
}

const held = '1 held, 0 ok, 0 failed, 0 aborted'
const ok = '0 held, 1 ok, 0 failed, 0 aborted'
const failed = '0 held, 0 ok, 1 failed, 0 aborted'
const aborted = '0 held, 0 ok, 0 failed, 1 aborted'
const upstreamError = new ProxyError('cut', { code: 'TEST_CUT', status: 502, source: 'upstream' })

describe('the lease of an answer', () => {
  it.each([
    ['no body', null],
    ['bytes', Buffer.from('bytes')],
    ['a whole body', new WholeBody('text')]
  ])('ends at once with %s, which is passed on as it is', async (_, body) => {
    const { response, lease } = await answerWith(body)
    expect(response.body).toBe(body)
    expect(lease()).toBe(ok)
  })

  it('ends with the end of a source', async () => {
    const source = new HandMadeBody(6)
    const { response, lease } = await answerWith(source)
    expect((response.body as BodySource).length).toBe(6)
    const { chunks, ended } = readBody(response.body)
    source.sink?.data(Buffer.from('abc'))
    source.sink?.data(Buffer.from('def'))
    expect(lease()).toBe(held)
    source.sink?.end()
    expect(lease()).toBe(ok)
    expect(await ended).toBe('end')
    expect(chunks.join('')).toBe('abcdef')
  })

  it('ends with the end of a Readable', async () => {
    const stream = new PassThrough()
    const { response, lease } = await answerWith(stream)
    stream.write('abc')
    expect(lease()).toBe(held)
    const read = readAll(response.body, 1000)
    stream.end('def')
    expect((await read).toString()).toBe('abcdef')
    expect(lease()).toBe(ok)
  })

  it('ends with a source that delivers everything while it starts', async () => {
    const source: BodySource = {
      start(sink): Flow {
        sink.data(Buffer.from('abc'))
        sink.end()
        return { resume() {}, abort() {} }
      },
      discard() {}
    }
    const { response, lease } = await answerWith(source)
    expect((await readAll(response.body, 10)).toString()).toBe('abc')
    expect(lease()).toBe(ok)
  })

  it('is a failure when a source breaks off', async () => {
    const source = new HandMadeBody()
    const { response, lease } = await answerWith(source)
    const { ended } = readBody(response.body)
    source.sink?.data(Buffer.from('abc'))
    source.sink?.error(upstreamError)
    expect(await ended).toBe(upstreamError)
    expect(lease()).toBe(failed)
  })

  it('is a failure when a Readable breaks off, before it is read too', async () => {
    const early = await answerWith(
      new Readable({
        read() {
          this.destroy(new Error('cut'))
        }
      })
    )
    expect(await readBody(early.response.body).ended).toMatchObject({ code: 'BODY_BROKEN' })
    expect(early.lease()).toBe(failed)

    const stream = new PassThrough()
    const unread = await answerWith(stream)
    stream.destroy(new Error('cut'))
    await new Promise((resolve) => stream.once('close', resolve))
    expect(unread.lease()).toBe(held)
    expect(await readBody(unread.response.body).ended).toMatchObject({ code: 'BODY_BROKEN' })
    expect(unread.lease()).toBe(failed)
  })

  it('is aborted when the reader stops in the middle, and the source is told', async () => {
    const source = new HandMadeBody()
    const { response, lease } = await answerWith(source)
    const { flow } = readBody(response.body)
    source.sink?.data(Buffer.from('abc'))
    flow.abort()
    expect(source.aborted).toBe(1)
    expect(lease()).toBe(aborted)
  })

  it('is aborted when the body breaks off because the client has left, however the source puts it', async () => {
    const told = new HandMadeBody()
    const first = await answerWith(told)
    const reading = readBody(first.response.body)
    told.sink?.error(clientAborted())
    expect(await reading.ended).toMatchObject({ code: 'CLIENT_ABORTED' })
    expect(first.lease()).toBe(aborted)

    const untold = new HandMadeBody()
    const client = new AbortController()
    const second = await answerWith(untold, { signal: client.signal })
    readBody(second.response.body)
    client.abort()
    untold.sink?.error(upstreamError)
    expect(second.lease()).toBe(aborted)
  })

  it('is aborted when the body breaks off by a fault of this side', async () => {
    const source = new HandMadeBody()
    const { response, lease } = await answerWith(source)
    readBody(response.body)
    source.sink?.error(new ProxyError('disk full', { code: 'TEST_DISK', status: 500, source: 'proxy' }))
    expect(lease()).toBe(aborted)
  })

  it('is a success when the body is discarded: the target has answered', async () => {
    const source = new HandMadeBody()
    const fromSource = await answerWith(source)
    ;(fromSource.response.body as BodySource).discard()
    expect(source.discarded).toBe(1)
    expect(fromSource.lease()).toBe(ok)

    const stream = new PassThrough()
    const fromReadable = await answerWith(stream)
    ;(fromReadable.response.body as BodySource).discard()
    expect(stream.destroyed).toBe(true)
    expect(fromReadable.lease()).toBe(ok)
  })

  it('ends once, whatever is called after the end', async () => {
    const source = new HandMadeBody()
    const { response, lease } = await answerWith(source)
    const { flow } = readBody(response.body)
    source.sink?.end()
    flow.abort()
    flow.resume()
    expect(lease()).toBe(ok)
  })

  it('ends when the source cannot be started', async () => {
    const { response, lease } = await answerWith({
      start() {
        throw new TypeError('a bug')
      },
      discard() {}
    })
    expect(() => readBody(response.body)).toThrow('a bug')
    expect(lease()).toBe(aborted)
  })

  it.each(['end', 'error', 'abort', 'discard', 'none'] as const)('is a failure with a status of failureStatuses, at its %s', async (how) => {
    const source = new HandMadeBody()
    const { response, lease } = await answerWith(how === 'none' ? null : source, { status: 503, failureStatuses: [502, 503] })
    expect(response.status).toBe(503)
    if (how === 'discard') (response.body as BodySource).discard()
    else if (how !== 'none') {
      expect(lease()).toBe(held)
      const { flow } = readBody(response.body)
      if (how === 'end') source.sink?.end()
      else if (how === 'error') source.sink?.error(clientAborted())
      else flow.abort()
    }
    expect(lease()).toBe(failed)
  })

  it('is a success with every other status', async () => {
    for (const status of [200, 304, 404, 500, 502, 503, 504]) expect((await answerWith(null, { status })).lease()).toBe(ok)
    expect((await answerWith(null, { status: 500, failureStatuses: [503] })).lease()).toBe(ok)
  })
})

describe('backpressure', () => {
  it('passes through in both directions', async () => {
    const source = new HandMadeBody()
    const { response } = await answerWith(source)
    const answers = [true, false]
    const flow = (response.body as BodySource).start({ data: () => answers.shift() as boolean, end() {}, error() {} })
    expect(source.sink?.data(Buffer.from('a'))).toBe(true)
    expect(source.sink?.data(Buffer.from('b'))).toBe(false)
    flow.resume()
    expect(source.resumed).toBe(1)
  })

  it('hands chunks and trailers on uncopied', async () => {
    const source = new HandMadeBody()
    const { response } = await answerWith(source)
    const got: unknown[] = []
    ;(response.body as BodySource).start({ data: (chunk) => got.push(chunk) > 0, end: (trailers) => got.push(trailers), error() {} })
    const chunk = Buffer.from('abc')
    const trailers = { 'x-checksum': '1' }
    source.sink?.data(chunk)
    source.sink?.end(trailers)
    expect(got[0]).toBe(chunk)
    expect(got[1]).toBe(trailers)
  })
})
