import { describe, expect, test } from 'vitest'
import { headersFromRaw } from '../src/headers.ts'
import { connectionOptions, isHopByHop, stripHopByHop } from '../src/hop-by-hop.ts'

describe('hop-by-hop fields', () => {
  test('are the fixed ones of RFC 9110 section 7.6.1', () => {
    const fixed = [
      'connection',
      'keep-alive',
      'proxy-connection',
      'proxy-authenticate',
      'proxy-authorization',
      'proxy-authentication-info',
      'te',
      'transfer-encoding',
      'upgrade',
      'http2-settings',
      'expect'
    ]
    for (const name of fixed) expect([name, isHopByHop(name)]).toEqual([name, true])
    for (const name of ['host', 'content-length', 'trailer', 'via', 'authorization', 'cookie', '__proto__', 'x'.repeat(32), 'x'.repeat(42)]) expect([name, isHopByHop(name)]).toEqual([name, false])
  })

  test('are those that Connection names, in any case and over several lines', () => {
    expect(connectionOptions(undefined)).toBeUndefined()
    for (const plain of ['close', 'keep-alive', 'Keep-Alive', 'Close', ' keep-alive , close ', '', ',']) expect([plain, connectionOptions(plain)]).toEqual([plain, undefined])
    expect([...(connectionOptions(['close, X-A', 'x-b,, X-a ']) ?? [])]).toEqual(['x-a', 'x-b'])
  })

  test('are not those that the next hop depends on', () => {
    expect([...(connectionOptions('Authorization, Content-Length, X-Forwarded-For, X-Forwarded-Anything, Set-Cookie, Cache-Control, Content-Range, X-Mine') ?? [])]).toEqual(['x-mine'])
  })

  test('are stripped into a copy', () => {
    const headers = headersFromRaw(['Connection', 'x-a', 'X-A', '1', 'X-B', '2', 'X-B', '3', 'Transfer-Encoding', 'chunked', '__proto__', 'p'])
    expect(Object.entries(stripHopByHop(headers))).toEqual([
      ['x-b', ['2', '3']],
      ['__proto__', 'p']
    ])
    expect(headers['x-a']).toBe('1')
  })
})
