import { createServer } from 'node:http'
import { rawExchange } from '@proxy/testing'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toNode } from '../src/node.ts'
import type { RunningHost } from './adapter-suite.ts'
import { listen, mirror } from './hosts.ts'

interface Mirrored {
  readonly target: string
  readonly authority: string
  readonly scheme: string
  readonly httpVersion: string
  readonly headers: [string, string | string[]][]
  readonly remoteAddress: string
  readonly peerAddress: string
  readonly body: string | null
}

let untrusting: RunningHost
let trusting: RunningHost
/** As someone runs it who has to live with old clients: what Node lets through there is refused here. */
let lenient: RunningHost
beforeAll(async () => {
  untrusting = await listen(createServer({ requireHostHeader: false }, toNode(mirror)))
  trusting = await listen(createServer(toNode(mirror, { trustedProxies: ['127.0.0.1', '10.0.0.0/8', '2001:db8::/32'] })))
  lenient = await listen(createServer({ insecureHTTPParser: true }, toNode(mirror)))
})
afterAll(() => Promise.all([untrusting.close(), trusting.close(), lenient.close()]))

/** Sends lines as they are and ends the connection after the answer. */
async function send(lines: readonly string[], options: { host?: RunningHost; body?: string } = {}): Promise<{ status: number; head: string; seen: Mirrored }> {
  const { host = untrusting, body = '' } = options
  const received = await rawExchange(host.port, Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`, 'latin1'), { end: true })
  const text = received.toString('latin1')
  const end = text.indexOf('\r\n\r\n')
  const status = Number(text.slice(9, 12))
  return { status, head: text.slice(0, end), seen: status === 200 ? (JSON.parse(text.slice(end + 4)) as Mirrored) : (undefined as unknown as Mirrored) }
}

const refused = async (lines: readonly string[], status = 400, options?: { host?: RunningHost; body?: string }): Promise<void> => {
  const answer = await send(lines, options)
  expect([lines, answer.status]).toEqual([lines, status])
  // What follows a message that is not understood is not understood either.
  expect(answer.head.toLowerCase()).toContain('connection: close')
}

describe('authority', () => {
  test('is the Host field, in lower case', async () => {
    for (const [host, authority] of [
      ['Example.COM', 'example.com'],
      ['example.com:8080', 'example.com:8080'],
      ['[2001:DB8::1]:80', '[2001:db8::1]:80'],
      ['a_b-c.example', 'a_b-c.example']
    ] as const)
      expect((await send(['GET / HTTP/1.1', `Host: ${host}`])).seen.authority).toBe(authority)
  })

  test('is refused when it is missing, doubled or no host', async () => {
    await refused(['GET / HTTP/1.1'])
    await refused(['GET / HTTP/1.1', 'Host: a', 'Host: b'])
    await refused(['GET / HTTP/1.1', 'Host: a', 'host: a'])
    for (const host of ['', 'user@a', 'user:secret@a', 'a/b', 'a?b', 'a b', 'a#b', 'a\\b', 'a:port', 'a:123456', '[::1', '::1', 'ä.example', 'a,b@c'])
      await refused(['GET / HTTP/1.1', `Host: ${host}`])
  })

  test('may be missing in HTTP/1.0, but not be wrong', async () => {
    const { seen } = await send(['GET / HTTP/1.0'])
    expect([seen.authority, seen.httpVersion]).toEqual(['', '1.0'])
    await refused(['GET / HTTP/1.0', 'Host: a', 'Host: b'])
    await refused(['GET / HTTP/1.0', 'Host: user@a'])
  })

  test('of an absolute target has to be that of Host', async () => {
    const { seen } = await send(['GET http://Example.com:80/a?b HTTP/1.1', 'Host: example.COM:80'])
    expect([seen.authority, seen.target, seen.scheme]).toEqual(['example.com:80', '/a?b', 'http'])
    expect((await send(['GET https://a/x HTTP/1.1', 'Host: a'])).seen.scheme).toBe('http')
    expect((await send(['GET http://a/x HTTP/1.0'])).seen.authority).toBe('a')
    await refused(['GET http://a/ HTTP/1.1', 'Host: b'])
    await refused(['GET http://a:80/ HTTP/1.1', 'Host: a'])
    await refused(['GET http://user@a/ HTTP/1.1', 'Host: user@a'])
    await refused(['GET http://user@a/ HTTP/1.1', 'Host: a'])
    await refused(['GET http:///x HTTP/1.1', 'Host: a'])
  })
})

describe('target', () => {
  test('is kept byte for byte', async () => {
    for (const target of ['/', '//host/x', '/a/../b', '/a%2Fb', '/a%zz', '/%', '/?', '/a?b?c=[d]|{e}"^`', '/;@:!$&()*+,=', "/'<>"])
      expect((await send([`GET ${target} HTTP/1.1`, 'Host: a'])).seen.target).toBe(target)
  })

  test('with a backslash, a fragment, a control or a byte beyond ASCII is refused', async () => {
    for (const target of ['/a\\b', '\\a', '/a#b', '/a\x01b', '/a\x7fb', '/\xe4', '/a\tb', 'a', 'a/b', '?a', 'host:80', '*', '@a/', 'ftp://a/', 'http:/a', 'javascript:x'])
      expect([target, (await send([`GET ${target} HTTP/1.1`, 'Host: a'])).status]).toEqual([target, 400])
    await refused(['GET http://a/b\\c HTTP/1.1', 'Host: a'])
    await refused(['GET http://a#b HTTP/1.1', 'Host: a'])
  })

  test('of OPTIONS may be the server', async () => {
    expect((await send(['OPTIONS * HTTP/1.1', 'Host: a'])).seen.target).toBe('*')
    // RFC 9112 section 3.2.4
    expect((await send(['OPTIONS http://a HTTP/1.1', 'Host: a'])).seen.target).toBe('*')
    expect((await send(['OPTIONS http://a/ HTTP/1.1', 'Host: a'])).seen.target).toBe('/')
    expect((await send(['GET http://a HTTP/1.1', 'Host: a'])).seen.target).toBe('/')
    expect((await send(['OPTIONS http://a?b HTTP/1.1', 'Host: a'])).seen.target).toBe('/?b')
    await refused(['OPTIONS *a HTTP/1.1', 'Host: a'])
  })
})

describe('fields', () => {
  test('keep their lines, in lower case, and know no magic names', async () => {
    const { seen } = await send(['GET / HTTP/1.1', 'Host: a', 'Accept: b', 'ACCEPT: c', '__proto__: d', 'constructor: e', 'Age: 1', 'Age: 2', 'X-Bytes: \xe4\xff', 'Empty:'])
    expect(seen.headers).toEqual([
      ['accept', ['b', 'c']],
      ['__proto__', 'd'],
      ['constructor', 'e'],
      ['age', ['1', '2']],
      ['x-bytes', '\xe4\xff'],
      ['empty', '']
    ])
  })

  test('of this connection are taken out, and those that Connection names', async () => {
    const { seen } = await send([
      'GET / HTTP/1.1',
      'Host: a',
      'Connection: close, X-Mine',
      'x-mine: 1',
      'Keep-Alive: 5',
      'Proxy-Connection: x',
      'Proxy-Authorization: x',
      'TE: trailers',
      'HTTP2-Settings: x',
      'connection: X-TOO',
      'X-Too: 1',
      'X-Kept: 1'
    ])
    expect(seen.headers).toEqual([['x-kept', '1']])
  })

  test('that others rely on cannot be named away by Connection', async () => {
    const { seen } = await send(
      ['POST / HTTP/1.1', 'Host: a', 'Connection: close, Host, Content-Length, Authorization, Cookie, Via', 'Content-Length: 2', 'Authorization: x', 'Cookie: a=1', 'Via: 1.1 b'],
      { body: 'ok' }
    )
    expect(seen.headers.map(([name]) => name)).toEqual(['content-length', 'authorization', 'cookie', 'via'])
    expect([seen.authority, seen.body]).toEqual(['a', 'ok'])
  })

  const claims = [
    'X-Forwarded-For: 192.0.2.7, 10.1.1.1',
    'X-Forwarded-Proto: https',
    'X-Forwarded-Host: h',
    'X-Forwarded-Prefix: /p',
    'Forwarded: for=1',
    'X-Real-IP: 1.1.1.1',
    'X-Original-URL: /admin',
    'X-Rewrite-URL: /admin',
    'X-HTTP-Method-Override: DELETE'
  ]

  test('that speak for the client are dropped when an untrusted peer sends them', async () => {
    const { seen } = await send(['GET / HTTP/1.1', 'Host: a', ...claims])
    expect([seen.headers, seen.remoteAddress, seen.peerAddress, seen.scheme]).toEqual([[], '127.0.0.1', '127.0.0.1', 'http'])
  })

  test('that speak for the client are kept and believed when a trusted peer sends them', async () => {
    const { seen } = await send(['GET / HTTP/1.1', 'Host: a', 'Connection: close, X-Forwarded-For, X-Forwarded-Port', 'X-Forwarded-Port: 443', ...claims], { host: trusting })
    expect(seen.headers).toHaveLength(10)
    expect([seen.remoteAddress, seen.peerAddress, seen.scheme]).toEqual(['192.0.2.7', '127.0.0.1', 'https'])
    expect((await send(['GET / HTTP/1.1', 'Host: a', 'X-Forwarded-Proto: gopher'], { host: trusting })).seen.scheme).toBe('http')
  })
})

describe('framing', () => {
  test('a body is one by Content-Length or by chunks', async () => {
    expect((await send(['POST / HTTP/1.1', 'Host: a', 'Content-Length: 2'], { body: 'ab' })).seen.body).toBe('ab')
    const chunked = await send(['POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: Chunked'], { body: '2\r\nab\r\n0\r\n\r\n' })
    expect([chunked.seen.body, chunked.seen.headers]).toEqual(['ab', []])
    expect((await send(['POST / HTTP/1.1', 'Host: a', 'Content-Length: 0'])).seen.body).toBeNull()
    expect((await send(['POST / HTTP/1.1', 'Host: a'])).seen.body).toBeNull()
    expect((await send(['GET / HTTP/1.1', 'Host: a', 'Content-Length: 2'], { body: 'ab' })).seen.body).toBe('ab')
  })

  test('that could be read in two ways is refused', async () => {
    const chunks = { body: '2\r\nab\r\n0\r\n\r\n' }
    await refused(['POST / HTTP/1.0', 'Host: a', 'Transfer-Encoding: chunked'], 400, chunks)
    await refused(['POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: gzip, chunked'], 501, chunks)
    // A lenient parser lets these two through.
    await refused(['POST / HTTP/1.1', 'Host: a', 'Content-Length: 2', 'Transfer-Encoding: chunked'], 400, { ...chunks, host: lenient })
    expect((await send(['POST / HTTP/1.1', 'Host: a', 'Content-Length: 2', 'Content-Length: 3'], { body: 'ab', host: lenient })).status).toBe(400)
  })
})
