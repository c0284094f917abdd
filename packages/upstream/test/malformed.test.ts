import { createRequest, Exchange, upstreamResult } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { answering, outcome, rawOrigin, testUpstream } from './support.ts'

const head = 'HTTP/1.1 200 OK\r\n'
const chunked = `${head}Transfer-Encoding: chunked\r\n\r\n`

const malformed: Readonly<Record<string, string>> = {
  'Content-Length and Transfer-Encoding': `${head}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  'Transfer-Encoding and Content-Length': `${head}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  'two different Content-Lengths': `${head}Content-Length: 5\r\nContent-Length: 10\r\n\r\nhelloworld`,
  'a list of Content-Lengths': `${head}Content-Length: 5, 5\r\n\r\nhello`,
  'Content-Length that is no number': `${head}Content-Length: 5x\r\n\r\nhello`,
  'an empty Content-Length': `${head}Content-Length: \r\n\r\nhello`,
  'a negative Content-Length': `${head}Content-Length: -1\r\n\r\nhello`,
  'a Content-Length beyond all numbers': `${head}Content-Length: 99999999999999999999999\r\n\r\nhello`,
  'another transfer coding before chunked': `${head}Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  'another transfer coding after chunked': `${head}Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  'a transfer coding that is almost chunked': `${head}Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  'chunked twice': `${head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  'a first chunk size that is no number': `${chunked}xyz\r\nhello\r\n0\r\n\r\n`,
  'a later chunk size that is no number': `${chunked}5\r\nhello\r\nzz\r\n`,
  'a chunk size with a prefix': `${chunked}0x5\r\nhello\r\n0\r\n\r\n`,
  'a chunk size beyond all numbers': `${chunked}fffffffffffffffff\r\nhello`,
  'more data than the chunk size says': `${chunked}5\r\nhelloworld\r\n0\r\n\r\n`,
  'bare LF in chunked': `${chunked}5\nhello\n0\n\n`,
  'a folded field': `${head}X-Fold: a\r\n b\r\nContent-Length: 2\r\n\r\nok`,
  'a folded Content-Length': `${head}Content-Length:\r\n 2\r\n\r\nok`,
  'NUL in a value': `${head}X-A: a\0b\r\nContent-Length: 2\r\n\r\nok`,
  'bare CR in a value': `${head}X-A: a\rb\r\nContent-Length: 2\r\n\r\nok`,
  'bare LF after a field': `${head}X-A: a\nContent-Length: 2\r\n\r\nok`,
  'space before the colon': `${head}X-Sp : a\r\nContent-Length: 2\r\n\r\nok`,
  'a field without a name': `${head}: a\r\nContent-Length: 2\r\n\r\nok`,
  'a field without a colon': `${head}nonsense\r\nContent-Length: 2\r\n\r\nok`,
  'no HTTP': 'hello, I am not HTTP\r\n\r\n',
  'HTTP/0.9': '<html>hi</html>',
  'HTTP/2 in text': 'HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'status 099': 'HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok',
  'a status of two digits': 'HTTP/1.1 99 Odd\r\nContent-Length: 2\r\n\r\nok',
  'a status of four digits': 'HTTP/1.1 2000 Odd\r\nContent-Length: 2\r\n\r\nok',
  '101 that nobody asked for': 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello',
  // A limit of undici: nobody expects one, because Expect is never sent.
  '100 that nobody asked for': `HTTP/1.1 100 Continue\r\n\r\n${head}Content-Length: 2\r\n\r\nok`
}

describe.each(Object.entries(malformed))('%s', (_name, answer) => {
  test.each(['and closes', 'and resets', 'and waits'])('%s', async (then) => {
    const origin = await rawOrigin(
      answering(({ socket }) => {
        if (then === 'and closes') socket.end(answer, 'latin1')
        else socket.write(answer, 'latin1', () => (then === 'and resets' ? setImmediate(() => socket.resetAndDestroy()) : undefined))
      })
    )
    const exchange = new Exchange()
    const handler = testUpstream(origin)
    // A reset may overtake what was sent before it.
    const expected = then === 'and resets' ? /^502 UPSTREAM_(PROTOCOL|CONNECTION_LOST|INCOMPLETE)$/ : /^502 UPSTREAM_PROTOCOL$/
    expect(await outcome(handler(createRequest({ exchange })))).toMatch(expected)
    expect(exchange.get(upstreamResult)).toMatch(/^UPSTREAM_/)
    // Never asked again, never kept.
    expect(origin.connections).toHaveLength(1)
    expect(origin.connections[0]?.received.match(/GET/g)).toHaveLength(1)
    await origin.allClosed()
  })
})

const cut: Readonly<Record<string, [answer: string, code: string]>> = {
  'no byte': ['', 'UPSTREAM_CONNECTION_LOST'],
  'within the status line': ['HTTP/1.1 20', 'UPSTREAM_CONNECTION_LOST'],
  'within the header': [`${head}Content-Len`, 'UPSTREAM_CONNECTION_LOST'],
  'within a body of known length': [`${head}Content-Length: 10\r\n\r\nhello`, 'UPSTREAM_INCOMPLETE'],
  'within a body of known length that was to close': [`${head}Connection: close\r\nContent-Length: 10\r\n\r\nhello`, 'UPSTREAM_INCOMPLETE'],
  'within a chunk': [`${chunked}5\r\nhe`, 'UPSTREAM_INCOMPLETE'],
  'between two chunks': [`${chunked}5\r\nhello\r\n`, 'UPSTREAM_INCOMPLETE'],
  'between two chunks that were to close': [`${head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`, 'UPSTREAM_INCOMPLETE'],
  'after the last chunk': [`${chunked}5\r\nhello\r\n0\r\n`, 'UPSTREAM_INCOMPLETE']
}

describe.each(Object.entries(cut))('cut %s', (_name, [answer, code]) => {
  test.each(['by a close', 'by a reset'])('%s', async (by) => {
    const origin = await rawOrigin(
      answering(({ socket }) => {
        if (by === 'by a close') socket.end(answer)
        else socket.write(answer, () => setImmediate(() => socket.resetAndDestroy()))
      })
    )
    const result = await outcome(testUpstream(origin)(createRequest()))
    if (by === 'by a close') expect(result).toBe(`502 ${code}`)
    else expect(result).toMatch(/^502 UPSTREAM_(CONNECTION_LOST|INCOMPLETE)$/)
    expect(origin.connections).toHaveLength(1)
  })
})

test.each([
  `${head}X-A: ${'a'.repeat(70_000)}\r\nContent-Length: 2\r\n\r\nok`,
  `${head}X-A: ${'a'.repeat(200_000)}`,
  `${head}${'x-a: b\r\n'.repeat(20_000)}`,
  `HTTP/1.1 103 Early\r\nX-A: ${'a'.repeat(70_000)}\r\n\r\n`,
  `${chunked}0\r\nX-A: ${'a'.repeat(70_000)}\r\n\r\n`
])('a header that is too large: %#', async (answer) => {
  const origin = await rawOrigin(answering(answer))
  expect(await outcome(testUpstream(origin)(createRequest()))).toBe('502 UPSTREAM_HEADERS_TOO_LARGE')
  await origin.allClosed()
})

test('a status below 100 is not an interim answer', async () => {
  const origin = await rawOrigin(answering(malformed['status 099'] as string))
  const interim: number[] = []
  expect(await outcome(testUpstream(origin)({ ...createRequest(), onInterim: (status: number) => interim.push(status) }))).toBe('502 UPSTREAM_PROTOCOL')
  expect(interim).toEqual([])
})

test('a status that has no meaning is passed on', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok'))
  expect(await outcome(testUpstream(origin)(createRequest()))).toBe('999 ok')
})
