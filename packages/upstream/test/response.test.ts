import { createRequest, Exchange, type HeaderMap, readAll, upstreamResult } from '@proxy/pipeline'
import { expect, test } from 'vitest'
import { answering, failureOf, outcome, rawOrigin, testUpstream, text } from './support.ts'

const ok = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

test('status and fields as they came, repeated ones as arrays, bytes as latin1, with Via', async () => {
  const origin = await rawOrigin(
    answering(
      'HTTP/1.1 207 Odd\r\nSet-Cookie: a=1\r\nX-Name: M\xfcnchen\r\nset-cookie: b=2; Path=/\r\nX-Empty:\r\nSET-COOKIE: c=3\r\nVia: 1.0 a\r\nContent-Length: 2\r\nX-Space: \t a b\xa0 \t\r\n\r\nok'
    )
  )
  const exchange = new Exchange()
  const { status, headers, body } = await testUpstream(origin)(createRequest({ exchange }))
  expect(status).toBe(207)
  expect({ ...headers }).toEqual({
    'set-cookie': ['a=1', 'b=2; Path=/', 'c=3'],
    'x-name': 'M\xfcnchen',
    'x-empty': '',
    via: '1.0 a, 1.1 proxy',
    'content-length': '2',
    'x-space': 'a b\xa0'
  })
  expect(Object.getPrototypeOf(Object.getPrototypeOf(headers))).toBeNull()
  expect(await text(body)).toBe('ok')
  expect(exchange.get(upstreamResult)).toBe(207)
})

test('fields called __proto__ and constructor are fields and change nothing else', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\n__proto__: evil\r\nconstructor: a\r\nconstructor: b\r\ntoString: c\r\ncontent-length: 2\r\n\r\nok'))
  const { headers } = await testUpstream(origin, { via: false })(createRequest())
  expect(Object.entries(headers)).toEqual([
    ['__proto__', 'evil'],
    ['constructor', ['a', 'b']],
    ['tostring', 'c'],
    ['content-length', '2']
  ])
})

test('what belongs to the connection stays here, also what Connection names, but not what it may not name', async () => {
  const fields =
    'Connection: x-hop, content-type, keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTE: x\r\nX-Hop: 1\r\nX-End: 2\r\nContent-Type: a/b\r\n'
  const origin = await rawOrigin(answering(`HTTP/1.1 200 OK\r\n${fields}Transfer-Encoding: Chunked \r\n\r\n2\r\nok\r\n0\r\n\r\n`))
  const { headers, body } = await testUpstream(origin, { via: false })(createRequest())
  expect({ ...headers }).toEqual({ 'x-end': '2', 'content-type': 'a/b' })
  expect(await text(body)).toBe('ok')
})

test('redirects are not followed and nothing is decoded', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip'))
  const { status, headers, body } = await testUpstream(origin, { via: false })(createRequest())
  expect([status, { ...headers }, await text(body)]).toEqual([302, { location: '/elsewhere', 'content-encoding': 'gzip', 'content-length': '8' }, 'not gzip'])
  expect(origin.connections[0]?.received.match(/GET/g)).toHaveLength(1)
})

test('interim answers go to onInterim, the final one is the answer', async () => {
  const origin = await rawOrigin(answering(`HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLink: </b.css>\r\nConnection: x-a\r\nX-A: 1\r\n\r\n${ok}`))
  const interim: [number, HeaderMap][] = []
  const request = { ...createRequest(), onInterim: (status: number, headers: HeaderMap) => interim.push([status, { ...headers }]) }
  expect(await outcome(testUpstream(origin, { via: false })(request))).toBe('200 ok')
  expect(interim).toEqual([
    [102, {}],
    [103, { link: ['</a.css>', '</b.css>'] }]
  ])
  expect(await outcome(testUpstream(origin)(createRequest()))).toBe('200 ok')
})

test('answers without a body', async () => {
  const origin = await rawOrigin((connection) =>
    answering('HTTP/1.1 204 No Content\r\n\r\n', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', ok)(connection)
  )
  const handler = testUpstream(origin, { via: false, connections: 1 })
  const answers = []
  for (let i = 0; i < 4; i++) {
    const { status, headers, body } = await handler(createRequest())
    answers.push([status, { ...headers }, body === null])
    await readAll(body, 100)
  }
  expect(answers).toEqual([
    [204, {}, true],
    [304, { etag: '"a"' }, true],
    [200, { 'content-length': '0' }, true],
    [200, { 'content-length': '2' }, false]
  ])
  expect(origin.connections).toHaveLength(1)
})

test('the fields of an answer to HEAD describe what is not sent, and the connection is kept', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n'))
  const handler = testUpstream(origin, { via: false, connections: 1 })
  for (let i = 0; i < 10; i++) {
    const { headers, body } = await handler(createRequest({ method: 'HEAD' }))
    expect([headers['content-length'], body]).toEqual(['1000', null])
  }
  expect(origin.connections).toHaveLength(1)
})

test('an answer to HEAD without a length keeps the connection where the origin says so', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n', ok))
  const handler = testUpstream(origin, { connections: 1 })
  expect((await handler(createRequest({ method: 'HEAD' }))).body).toBeNull()
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  expect(origin.connections).toHaveLength(1)
})

test('trailers come with the end, also of an empty body that was started late', async () => {
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n'
  const trailers = '0\r\nX-Sum: 1\r\nX-Sum: 2 \r\nKeep-Alive: x\r\n\r\n'
  const origin = await rawOrigin(answering(`${chunked}2\r\nok\r\n${trailers}`, `${chunked}${trailers}`))
  const handler = testUpstream(origin)
  for (const expected of ['ok', '']) {
    const { body } = await handler(createRequest())
    // Everything has come before anybody asks for it.
    await new Promise((resolve) => setImmediate(resolve))
    const got = await new Promise((resolve, reject) => {
      let received = ''
      const source = body as { start(sink: object): unknown }
      source.start({ data: (chunk: Buffer) => (received += chunk.toString()) !== '', end: (fields?: HeaderMap) => resolve([received, { ...fields }]), error: reject })
    })
    expect(got).toEqual([expected, { 'x-sum': ['1', '2'] }])
  }
})

test('a body that the close of the connection ends, of HTTP/1.0 and 1.1', async () => {
  for (const version of ['1.0', '1.1']) {
    const origin = await rawOrigin(answering(({ socket }) => socket.end(`HTTP/${version} 200 OK\r\n\r\nuntil close`)))
    const handler = testUpstream(origin)
    const { body } = await handler(createRequest())
    expect((body as { length?: number }).length).toBeUndefined()
    expect(await text(body)).toBe('until close')
    expect(await outcome(handler(createRequest()))).toBe('200 until close')
    expect(origin.connections).toHaveLength(2)
  }
})

/** A reset looks to undici like the end of such a body. */
test('a body that only the close of the connection would end is broken by a reset', async () => {
  const origin = await rawOrigin(answering(({ socket }) => socket.write('HTTP/1.1 200 OK\r\n\r\nuntil')))
  const { body } = await testUpstream(origin)(createRequest())
  const reading = text(body)
  origin.connections[0]?.socket.resetAndDestroy()
  expect(await failureOf(reading)).toMatchObject({ code: 'UPSTREAM_INCOMPLETE', status: 502, retryable: false })
})

test('bytes after an answer reach nobody', async () => {
  const evil = 'HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil'
  for (const first of [`${ok}${evil}`, `HTTP/1.1 204 No Content\r\n\r\n${evil}`, `HTTP/1.1 304 Not Modified\r\n\r\n${evil}`, 'HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nevil']) {
    const origin = await rawOrigin((connection) => answering(connection.index === 0 ? first : ok)(connection))
    const handler = testUpstream(origin, { connections: 1 })
    expect(await outcome(handler(createRequest()))).toMatch(/^(200 ok|204 |304 )$/)
    expect(await outcome(handler(createRequest()))).toBe('200 ok')
    expect(origin.connections).toHaveLength(2)
  }
})

/** CVE-2026-6733: an answer that nobody asked for must not become that of the next request. */
test('an answer on an idle connection answers nobody', async () => {
  const origin = await rawOrigin(answering(ok))
  const handler = testUpstream(origin, { connections: 1 })
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  origin.connections[0]?.socket.write('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil')
  await origin.allClosed()
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  expect(origin.connections).toHaveLength(2)
})

test('a body in an answer to HEAD is not taken for the next answer', async () => {
  const origin = await rawOrigin((connection) => answering(connection.index === 0 ? 'HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil' : ok)(connection))
  const handler = testUpstream(origin, { connections: 1 })
  await handler(createRequest({ method: 'HEAD' }))
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
})
