import { getEventListeners } from 'node:events'
import { type BodySink, type BodySource, createRequest, discardBody, type ProxyError, readAll } from '@proxy/pipeline'
import { expect, test } from 'vitest'
import { answering, failureOf, outcome, type RawConnection, type RawOrigin, rawOrigin, testUpstream, text } from './support.ts'

const ok = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
const MB = 1_000_000

/** A sink that is told things, and says so. */
class RecordingSink implements BodySink {
  bytes = 0
  log: string[] = []
  wanted = true
  private wake: (() => void) | undefined

  data(chunk: Uint8Array): boolean {
    this.bytes += chunk.byteLength
    this.wake?.()
    return this.wanted
  }

  end(): void {
    this.log.push('end')
    this.wake?.()
  }

  error(error: ProxyError): void {
    this.log.push(error.code)
    this.wake?.()
  }

  /** Resolves when `holds` holds, which is looked at whenever something comes. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds())
      await new Promise<void>((resolve) => {
        this.wake = resolve
      })
  }
}

/** Writes as fast as it is read, up to `size`. */
function endless(size: number): (connection: RawConnection) => void {
  return answering(({ socket }) => {
    socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${size}\r\n\r\n`)
    const block = Buffer.alloc(64 * 1024, 'x')
    let left = size
    const more = (): void => {
      while (left > 0) {
        const next = left < block.length ? block.subarray(0, left) : block
        left -= next.length
        if (!socket.write(next)) return
      }
    }
    socket.on('drain', more)
    more()
  })
}

/** Resolves when the origin has not been able to write for a while: what it wrote is in buffers on the way. */
async function stalled({ connections }: RawOrigin): Promise<number> {
  const { socket } = connections[0] as RawConnection
  let before = -1
  while (before !== socket.bytesWritten - socket.writableLength) {
    before = socket.bytesWritten - socket.writableLength
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  return before
}

test('a body that is not started, or not read, is not fetched: memory is bounded', async () => {
  const origin = await rawOrigin(endless(200 * MB))
  const { body } = await testUpstream(origin)(createRequest())
  await stalled(origin)
  const sink = new RecordingSink()
  sink.wanted = false
  const flow = (body as BodySource).start(sink)
  await stalled(origin)
  // What had come before the start, and no more than what undici had read.
  expect(sink.bytes).toBeGreaterThan(0)
  expect(sink.bytes).toBeLessThanOrEqual(256 * 1024)
  for (let round = 0; round < 3; round++) {
    const before = sink.bytes
    flow.resume()
    await sink.until(() => sink.bytes > before)
    await stalled(origin)
    expect(sink.bytes - before).toBeLessThanOrEqual(256 * 1024)
  }
  sink.wanted = true
  flow.resume()
  await sink.until(() => sink.log.length > 0)
  expect([sink.bytes, sink.log]).toEqual([200 * MB, ['end']])
})

test('what came before the start is delivered first and once, with the end or the failure that came too', async () => {
  const whole = await rawOrigin(answering(`HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n${'x'.repeat(50_000)}`))
  const response = await testUpstream(whole)(createRequest())
  await new Promise((resolve) => setTimeout(resolve, 100))
  const sink = new RecordingSink()
  sink.wanted = false
  const flow = (response.body as BodySource).start(sink)
  expect([sink.bytes, sink.log]).toEqual([50_000, ['end']])
  flow.resume()
  flow.abort()
  flow.abort()
  expect([sink.bytes, sink.log]).toEqual([50_000, ['end']])

  const broken = await rawOrigin(answering('HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello'))
  const { body } = await testUpstream(broken)(createRequest())
  broken.connections[0]?.socket.end()
  await broken.allClosed()
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(await failureOf(text(body))).toMatchObject({ code: 'UPSTREAM_INCOMPLETE' })
})

test('resume without a pause, after the end and after an abort is harmless', async () => {
  const origin = await rawOrigin(answering(ok))
  const { body } = await testUpstream(origin)(createRequest())
  const sink = new RecordingSink()
  const flow = (body as BodySource).start(sink)
  flow.resume()
  await sink.until(() => sink.log.length > 0)
  flow.resume()
  flow.abort()
  flow.resume()
  expect([sink.bytes, sink.log]).toEqual([2, ['end']])
})

test('abort ends delivery; the connection goes, the sink hears nothing', async () => {
  const origin = await rawOrigin(endless(100 * MB))
  const { body } = await testUpstream(origin)(createRequest())
  const sink = new RecordingSink()
  const flow = (body as BodySource).start(sink)
  await sink.until(() => sink.bytes > 0)
  flow.abort()
  const { bytes } = sink
  flow.resume()
  await origin.allClosed()
  expect([sink.bytes, sink.log]).toEqual([bytes, []])
})

test('a reader may give up within data', async () => {
  const origin = await rawOrigin(endless(100 * MB))
  const { body } = await testUpstream(origin)(createRequest())
  await expect(readAll(body, 200 * MB).then(({ length }) => length)).resolves.toBe(100 * MB)
  const second = await testUpstream(origin)(createRequest())
  // Of a body without a length, readAll finds out while it reads.
  const source = second.body as BodySource
  const unknown: BodySource = { start: (sink) => source.start(sink), discard: () => source.discard() }
  expect(await failureOf(readAll(unknown, 1000))).toMatchObject({ code: 'BODY_TOO_LARGE' })
  await origin.allClosed()
})

test.each([
  ['small', 1_000],
  ['what is left of a large one', 1_000_000]
])('discarding a %s body keeps the connection', async (_name, size) => {
  const origin = await rawOrigin(answering(({ socket }) => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${size}\r\n\r\n${'x'.repeat(size)}`), ok))
  const handler = testUpstream(origin, { connections: 1 })
  const { body } = await handler(createRequest())
  if (size <= 64 * 1024) discardBody(body)
  else {
    const sink = new RecordingSink()
    const flow = (body as BodySource).start(sink)
    await sink.until(() => sink.bytes > size - 64 * 1024)
    flow.abort()
  }
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  expect(origin.connections).toHaveLength(1)
})

test.each([
  ['large', 'content-length: 1000000\r\n\r\nx'],
  ['of unknown length', 'transfer-encoding: chunked\r\n\r\n1\r\nx\r\n']
])('discarding a body that is %s gives up the connection', async (_name, rest) => {
  const origin = await rawOrigin((connection) => answering(connection.index === 0 ? `HTTP/1.1 200 OK\r\n${rest}` : ok)(connection))
  const handler = testUpstream(origin, { connections: 1 })
  discardBody((await handler(createRequest())).body)
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  expect(origin.connections).toHaveLength(2)
})

test('a discarded body that drips is not waited for beyond the deadline', async () => {
  const origin = await rawOrigin((connection) =>
    connection.index === 0
      ? answering(({ socket }) => {
          socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n')
          const timer = setInterval(() => socket.write('x'), 20)
          socket.on('close', () => clearInterval(timer))
        })(connection)
      : answering(ok)(connection)
  )
  const handler = testUpstream(origin, { connections: 1, bodyTimeoutMs: 200, connectTimeoutMs: 20_000 })
  discardBody((await handler(createRequest())).body)
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  expect(origin.connections).toHaveLength(2)
})

test('a client that leaves before the answer: the origin is let go', async () => {
  const origin = await rawOrigin(() => {})
  const controller = new AbortController()
  const failed = failureOf(testUpstream(origin)(createRequest({ signal: controller.signal })))
  while (origin.connections.length === 0) await new Promise((resolve) => setImmediate(resolve))
  await origin.connections[0]?.until('\r\n\r\n')
  controller.abort()
  expect(await failed).toMatchObject({ code: 'CLIENT_ABORTED', status: 499, source: 'client', retryable: false })
  await origin.allClosed()
})

test('a client that had left before it was asked: nobody is asked', async () => {
  const origin = await rawOrigin(answering(ok))
  expect(await failureOf(testUpstream(origin)(createRequest({ signal: AbortSignal.abort() })))).toMatchObject({ code: 'CLIENT_ABORTED' })
  expect(origin.connections).toHaveLength(0)
})

test('a client that leaves during the body: the reader is told, and the origin is let go', async () => {
  const origin = await rawOrigin(endless(100 * MB))
  const controller = new AbortController()
  const { body } = await testUpstream(origin)(createRequest({ signal: controller.signal }))
  const sink = new RecordingSink()
  ;(body as BodySource).start(sink)
  await sink.until(() => sink.bytes > 0)
  controller.abort()
  await sink.until(() => sink.log.length > 0)
  const { bytes } = sink
  await origin.allClosed()
  expect([sink.bytes, sink.log]).toEqual([bytes, ['CLIENT_ABORTED']])
})

test('a reader that gives the body up by the same signal is not told', async () => {
  const origin = await rawOrigin(endless(100 * MB))
  const controller = new AbortController()
  const { body } = await testUpstream(origin)(createRequest({ signal: controller.signal }))
  const sink = new RecordingSink()
  const flow = (body as BodySource).start(sink)
  controller.signal.addEventListener('abort', () => flow.abort())
  controller.abort()
  await origin.allClosed()
  expect(sink.log).toEqual([])
})

test('a client that leaves between the header and the start of the body', async () => {
  // The one is cut off, of the other what is left is read and forgotten: neither may pass for complete.
  for (const answer of [endless(100 * MB), answering('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx')]) {
    const origin = await rawOrigin(answer)
    const controller = new AbortController()
    const { body } = await testUpstream(origin)(createRequest({ signal: controller.signal }))
    controller.abort()
    expect(await failureOf(readAll(body, 200 * MB))).toMatchObject({ code: 'CLIENT_ABORTED' })
  }
})

test('no listener is left on the signal, however it ends', async () => {
  const controller = new AbortController()
  const { signal } = controller
  const origin = await rawOrigin(answering(ok))
  const broken = await rawOrigin(answering(({ socket }) => socket.resetAndDestroy()))
  const handler = testUpstream(origin)
  await outcome(handler(createRequest({ signal })))
  discardBody((await handler(createRequest({ signal }))).body)
  await handler(createRequest({ method: 'HEAD', signal }))
  await outcome(testUpstream(broken)(createRequest({ signal })))
  await failureOf(handler(createRequest({ target: '*', signal })))
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(getEventListeners(signal, 'abort')).toEqual([])
})

// RFC 9112 section 6.3, and what every parser does with it: a field that names nothing is no reason to lose the answer.
test.each(['bogus', 'x-any; q=1'])('with the unknown transfer coding "%s" the close of the connection ends the body', async (coding) => {
  const origin = await rawOrigin(
    answering(({ socket }) => {
      socket.end(`HTTP/1.1 200 OK\r\nTransfer-Encoding: ${coding}\r\n\r\nall of it`)
    })
  )
  const response = await testUpstream(origin)(createRequest())
  expect(await text(response.body)).toBe('all of it')
  expect(response.headers['transfer-encoding']).toBeUndefined()
})
