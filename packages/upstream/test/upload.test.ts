import { createHash } from 'node:crypto'
import { PassThrough, Readable } from 'node:stream'
import { type BodySink, type BodySource, createRequest, type Flow, ProxyError, toReadable } from '@proxy/pipeline'
import { startOrigin } from '@proxy/testing'
import { expect, onTestFinished, test } from 'vitest'
import { answering, closedPort, failureOf, fields, outcome, rawOrigin, testUpstream, text } from './support.ts'

const ok = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

/** A body source that the test feeds. */
class Feed implements BodySource {
  length: number | undefined
  sink: BodySink | undefined
  paused = false
  log: string[] = []

  start(sink: BodySink): Flow {
    this.log.push('start')
    this.sink = sink
    return {
      resume: () => {
        this.paused = false
      },
      abort: () => this.log.push('abort')
    }
  }

  discard(): void {
    this.log.push('discard')
  }

  async started(): Promise<BodySink> {
    while (this.sink === undefined) await new Promise((resolve) => setImmediate(resolve))
    return this.sink
  }
}

test('a stream of known length keeps it, one of unknown length is chunked', async () => {
  const origin = await startOrigin((request, response) => {
    request.on('end', () => response.end('ok'))
    request.resume()
  })
  onTestFinished(() => origin.close())
  const handler = testUpstream(origin)
  const body = (): Readable => Readable.from([Buffer.from('hello '), Buffer.from('world')], { objectMode: false })
  await text((await handler(createRequest({ method: 'POST', body: body(), headers: fields({ 'content-length': '11' }) }))).body)
  await text((await handler(createRequest({ method: 'POST', body: body() }))).body)
  const framing = origin.requests.map(({ rawHeaders, body }) => [rawHeaders.includes('content-length'), rawHeaders.includes('transfer-encoding'), body.toString()])
  expect(framing).toEqual([
    [true, false, 'hello world'],
    [false, true, 'hello world']
  ])
})

test('20 MB arrive whole, with backpressure towards the client', async () => {
  const hash = createHash('sha256')
  const origin = await startOrigin((request, response) => {
    // Reads slowly at first.
    request.once('data', (first: Buffer) => {
      hash.update(first)
      request.pause()
      setTimeout(() => {
        request.on('data', (chunk: Buffer) => hash.update(chunk))
        request.on('end', () => response.end(hash.digest('hex')))
        request.resume()
      }, 100)
    })
  })
  onTestFinished(() => origin.close())
  const block = Buffer.alloc(100_000, 'abcdefghij')
  let produced = 0
  let producedWhilePaused = 0
  const expected = createHash('sha256')
  const body = new Readable({
    read() {
      if (produced === 200) {
        this.push(null)
        return
      }
      produced++
      expected.update(block)
      this.push(block)
    }
  })
  setTimeout(() => {
    producedWhilePaused = produced
  }, 50)
  const answer = await text((await testUpstream(origin)(createRequest({ method: 'PUT', body }))).body)
  expect(answer).toBe(expected.digest('hex'))
  expect(producedWhilePaused).toBeLessThan(200)
})

test('an upload is not begun before there is a connection for it', async () => {
  const origin = await rawOrigin(() => {})
  const handler = testUpstream(origin, { connections: 1 })
  const first = outcome(handler(createRequest()))
  const feed = new Feed()
  const second = outcome(handler(createRequest({ method: 'POST', body: feed })))
  while (origin.connections.length === 0) await new Promise((resolve) => setImmediate(resolve))
  await origin.connections[0]?.until('\r\n\r\n')
  expect(feed.log).toEqual([])
  origin.connections[0]?.socket.write(ok)
  expect(await first).toBe('200 ok')
  const sink = await feed.started()
  sink.data(Buffer.from('x'))
  sink.end()
  await origin.connections[0]?.until('0\r\n\r\n')
  origin.connections[0]?.socket.write(ok)
  expect(await second).toBe('200 ok')
})

test('a client that leaves during its upload: the origin sees it broken off, chunked or not', async () => {
  for (const headers of [fields({}), fields({ 'content-length': '100' })]) {
    const origin = await rawOrigin(() => {})
    const feed = new Feed()
    const failed = failureOf(testUpstream(origin)(createRequest({ method: 'POST', body: feed, headers })))
    const sink = await feed.started()
    sink.data(Buffer.from('partial'))
    await origin.connections[0]?.until('partial')
    sink.error(new ProxyError('the client closed the connection', { code: 'CLIENT_ABORTED', status: 499, source: 'client' }))
    expect(await failed).toMatchObject({ code: 'CLIENT_ABORTED', status: 499, source: 'client', retryable: false })
    await origin.allClosed()
    expect(origin.connections[0]?.received).not.toContain('\r\n0\r\n\r\n')
  }
})

test('what a layer broke the upload off with is what the request fails with', async () => {
  const origin = await rawOrigin(() => {})
  const feed = new Feed()
  const failed = failureOf(testUpstream(origin)(createRequest({ method: 'POST', body: feed })))
  ;(await feed.started()).error(new ProxyError('too large', { code: 'BODY_TOO_LARGE', status: 413, source: 'client' }))
  expect(await failed).toMatchObject({ code: 'BODY_TOO_LARGE', status: 413 })
})

test('a stream that fails or closes is a broken request, whatever its error is called', async () => {
  const origin = await rawOrigin(() => {})
  const breaks: ((stream: PassThrough) => void)[] = [
    (stream) => stream.destroy(Object.assign(new Error('aborted'), { code: 'ECONNRESET' })),
    (stream) => stream.destroy(new Error('disk')),
    (stream) => stream.destroy()
  ]
  for (const end of breaks) {
    const body = new PassThrough()
    body.write('part')
    const failed = failureOf(testUpstream(origin)(createRequest({ method: 'PUT', body })))
    const count = origin.connections.length
    while (origin.connections.length === count) await new Promise((resolve) => setImmediate(resolve))
    await origin.connections.at(-1)?.until('part')
    end(body)
    expect(await failed).toMatchObject({ code: 'REQUEST_BODY_BROKEN', status: 400, source: 'client', retryable: false })
  }
  await origin.allClosed()
})

test('more or fewer bytes than Content-Length says are never sent as a whole request', async () => {
  const origin = await rawOrigin(() => {})
  for (const body of ['too long', 'x']) {
    const stream = Readable.from([Buffer.from(body)], { objectMode: false })
    const failure = await failureOf(testUpstream(origin)(createRequest({ method: 'POST', body: stream, headers: fields({ 'content-length': '3' }) })))
    expect(failure.status).toBeLessThan(502)
    expect(failure).toMatchObject({ retryable: false })
    expect(failure.source).not.toBe('upstream')
  }
  await origin.allClosed()
})

test('an answer before the end of the upload is the answer; the rest of the upload is given up', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig'))
  const feed = new Feed()
  const answer = outcome(testUpstream(origin)(createRequest({ method: 'POST', body: feed })))
  const sink = await feed.started()
  sink.data(Buffer.from('begin'))
  expect(await answer).toBe('413 big')
  await origin.allClosed()
  while (feed.log.length < 2) await new Promise((resolve) => setImmediate(resolve))
  expect(feed.log).toEqual(['start', 'abort'])
})

test('an answer may begin before the upload ends, and end after it', async () => {
  const origin = await rawOrigin(async (connection) => {
    await connection.until('first')
    connection.socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n')
    await connection.until('second')
    connection.socket.write('6\r\nsecond\r\n')
    await connection.until('0\r\n\r\n')
    connection.socket.write('0\r\n\r\n')
  })
  const feed = new Feed()
  const responding = testUpstream(origin)(createRequest({ method: 'POST', body: feed }))
  const sink = await feed.started()
  sink.data(Buffer.from('first'))
  const { body } = await responding
  sink.data(Buffer.from('second'))
  sink.end()
  expect(await text(body)).toBe('firstsecond')
})

test('a failure before the upload was begun gives it up unread', async () => {
  const origin = await rawOrigin(answering(({ socket }) => socket.end('no HTTP')))
  const feed = new Feed()
  await failureOf(testUpstream(`http://127.0.0.1:${await closedPort()}`)(createRequest({ method: 'POST', body: feed })))
  expect(feed.log).toEqual(['discard'])
  const stream = new PassThrough()
  stream.write('x')
  await failureOf(testUpstream(origin)(createRequest({ method: 'POST', body: stream })))
  expect(stream.destroyed).toBe(true)
})

test('the time that a slow client takes for its upload is not counted against the origin', async () => {
  const origin = await rawOrigin(async (connection) => {
    await connection.until('0\r\n\r\n')
    connection.socket.write(ok)
  })
  const feed = new Feed()
  const answer = outcome(testUpstream(origin, { headersTimeoutMs: 100 })(createRequest({ method: 'POST', body: feed })))
  const sink = await feed.started()
  sink.data(Buffer.from('x'))
  // Three times the deadline.
  await new Promise((resolve) => setTimeout(resolve, 300))
  sink.data(Buffer.from('y'))
  sink.end()
  expect(await answer).toBe('200 ok')
})

test('an origin that takes neither the upload nor answers is', async () => {
  const origin = await rawOrigin(({ socket }) => void socket.pause())
  const block = Buffer.alloc(64 * 1024)
  const body = new Readable({
    read() {
      this.push(block)
    }
  })
  expect(await outcome(testUpstream(origin, { headersTimeoutMs: 200 })(createRequest({ method: 'POST', body })))).toBe('504 UPSTREAM_HEADERS_TIMEOUT')
  expect(body.destroyed).toBe(true)
})

test('an origin that takes the upload slowly has all the time it needs', async () => {
  const size = 40_000_000
  const origin = await rawOrigin(({ socket }) => {
    let read = 0
    let pauseAt = 0
    socket.on('data', (chunk) => {
      read += chunk.length
      if (read >= size) socket.write(ok)
      else if (read > pauseAt) {
        pauseAt = read + 4_000_000
        socket.pause()
        setTimeout(() => socket.resume(), 300)
      }
    })
  })
  let left = size / 100_000
  const block = Buffer.alloc(100_000)
  const body = new Readable({
    read() {
      this.push(left-- > 0 ? block : null)
    }
  })
  const start = performance.now()
  expect(await outcome(testUpstream(origin, { headersTimeoutMs: 2_000 })(createRequest({ method: 'POST', body, headers: fields({ 'content-length': String(size) }) })))).toBe('200 ok')
  // Longer than the deadline: it was put off.
  expect(performance.now() - start).toBeGreaterThan(2_000)
})

test('the deadline for the header runs from the end of the upload', async () => {
  const origin = await rawOrigin(async (connection) => {
    await connection.until('0\r\n\r\n')
    setTimeout(() => connection.socket.write(ok), 1_000)
  })
  const silent = await rawOrigin(() => {})
  const upload = async (to: { url: string }): Promise<string> => {
    const feed = new Feed()
    const answer = outcome(testUpstream(to, { headersTimeoutMs: 2_000 })(createRequest({ method: 'POST', body: feed })))
    const sink = await feed.started()
    sink.data(Buffer.from('x'))
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    sink.end()
    return answer
  }
  expect(await Promise.all([upload(origin), upload(silent)])).toEqual(['200 ok', '504 UPSTREAM_HEADERS_TIMEOUT'])
})

test('a body source that is read as a stream elsewhere first is still sent whole', async () => {
  const origin = await startOrigin((request, response) => request.pipe(response))
  onTestFinished(() => origin.close())
  const feed = new Feed()
  const answer = testUpstream(origin)(createRequest({ method: 'POST', body: toReadable(feed) }))
  const sink = await feed.started()
  sink.data(Buffer.from('hello'))
  sink.end()
  expect(await text((await answer).body)).toBe('hello')
})
