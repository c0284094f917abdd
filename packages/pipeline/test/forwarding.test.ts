import { describe, expect, test } from 'vitest'
import { addForwardingHeaders, isForwardingClaim, plainAddress, TrustedProxies } from '../src/forwarding.ts'
import { createHeaders, headersFromRaw } from '../src/headers.ts'
import { createRequest } from '../src/request.ts'

describe('trusted proxies', () => {
  test('are addresses and blocks of both families', () => {
    const trusted = new TrustedProxies(['10.0.0.0/8', '192.0.2.1', '2001:db8::/32', '::1'])
    for (const address of ['10.255.0.1', '192.0.2.1', '2001:db8:ffff::1', '::1']) expect([address, trusted.trusts(address)]).toEqual([address, true])
    for (const address of ['11.0.0.1', '192.0.2.2', '2001:db9::1', '::2', '', 'localhost', '10.0.0.1x']) expect([address, trusted.trusts(address)]).toEqual([address, false])
    expect(new TrustedProxies().trusts('127.0.0.1')).toBe(false)
    expect(new TrustedProxies(['0.0.0.0/0']).trusts('8.8.8.8')).toBe(true)
  })

  test('that are no address are refused', () => {
    for (const entry of ['', 'localhost', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/1.5', '10.0.0.0/x', '::/129', '10.0.0/8']) expect(() => new TrustedProxies([entry])).toThrow(TypeError)
  })
})

describe('the address of the client', () => {
  const trusted = new TrustedProxies(['10.0.0.0/8', '2001:db8::/32'])
  const client = (peer: string, forwardedFor: string | string[] | undefined) => trusted.clientAddress(peer, forwardedFor)

  test('is the peer when the peer is not trusted, whatever it says', () => {
    expect(client('192.0.2.9', '1.1.1.1')).toBe('192.0.2.9')
    expect(client('', '1.1.1.1')).toBe('')
  })

  test('is the rightmost that is not one of ours', () => {
    expect(client('10.0.0.1', undefined)).toBe('10.0.0.1')
    expect(client('10.0.0.1', '192.0.2.7')).toBe('192.0.2.7')
    expect(client('10.0.0.1', '192.0.2.7, 10.0.0.3,10.0.0.2')).toBe('192.0.2.7')
    expect(client('10.0.0.1', ['192.0.2.7', '10.0.0.3'])).toBe('192.0.2.7')
    // All ours: the one furthest out.
    expect(client('10.0.0.1', '10.0.0.4, 10.0.0.3')).toBe('10.0.0.4')
  })

  test('is not what the client itself put on the left', () => {
    expect(client('10.0.0.1', '1.1.1.1, 10.0.0.9, 192.0.2.7, 10.0.0.2')).toBe('192.0.2.7')
    expect(client('10.0.0.1', `${'1.1.1.1, '.repeat(5000)}192.0.2.7`)).toBe('192.0.2.7')
  })

  test('may have a port, brackets, or be IPv4 in IPv6', () => {
    expect(client('10.0.0.1', '192.0.2.7:4711')).toBe('192.0.2.7')
    expect(client('10.0.0.1', '2001:db9::7')).toBe('2001:db9::7')
    expect(client('10.0.0.1', '[2001:db9::7]')).toBe('2001:db9::7')
    expect(client('10.0.0.1', '[2001:db9::7]:80, [2001:db8::1]:80')).toBe('2001:db9::7')
    expect(client('10.0.0.1', '::ffff:192.0.2.7')).toBe('192.0.2.7')
    expect(client('10.0.0.1', '192.0.2.7, ::ffff:10.0.0.2')).toBe('192.0.2.7')
    expect(client('2001:db8::1', '192.0.2.7')).toBe('192.0.2.7')
  })

  test('stops at what is no address: the last hop that made sense', () => {
    for (const garbage of ['unknown', '', '_hidden', '192.0.2', '192.0.2.7:x', '192.0.2.7:1:2', '[2001:db9::7', '[2001:db9::12', '[::1]x', '2001:db9::7]', ':80', '1.1.1.1 2.2.2.2']) {
      expect([garbage, client('10.0.0.1', garbage)]).toEqual([garbage, '10.0.0.1'])
      expect([garbage, client('10.0.0.1', `192.0.2.7, ${garbage}, 10.0.0.5`)]).toEqual([garbage, '10.0.0.5'])
    }
  })

  test('is written plainly', () => {
    expect([plainAddress(undefined), plainAddress('::ffff:192.0.2.1'), plainAddress('::ffff:1'), plainAddress('192.0.2.1')]).toEqual(['', '192.0.2.1', '::ffff:1', '192.0.2.1'])
    // A list of blocks throws on a zone, and a link-local peer has one.
    expect(plainAddress('fe80::1%eth0')).toBe('fe80::1')
    expect(new TrustedProxies(['fe80::/10']).trusts(plainAddress('fe80::1%eth0'))).toBe(true)
  })
})

describe('what this hop adds', () => {
  test('says who was asked, by whom and how', () => {
    const headers = createHeaders()
    addForwardingHeaders(headers, createRequest({ authority: 'a:80', scheme: 'https', remoteAddress: '192.0.2.1' }))
    expect({ ...headers }).toEqual({ via: '1.1 proxy', 'x-forwarded-for': '192.0.2.1', 'x-forwarded-host': 'a:80', 'x-forwarded-proto': 'https' })
  })

  test('goes behind what trusted proxies said, and does not replace it', () => {
    const headers = headersFromRaw(['Via', '1.0 b', 'via', '2 c', 'X-Forwarded-For', '192.0.2.1', 'X-Forwarded-Host', 'h', 'X-Forwarded-Proto', 'https'])
    addForwardingHeaders(headers, createRequest({ remoteAddress: '10.0.0.1' }), { via: 'edge' })
    expect({ ...headers }).toEqual({ via: '1.0 b, 2 c, 1.1 edge', 'x-forwarded-for': '192.0.2.1, 10.0.0.1', 'x-forwarded-host': 'h', 'x-forwarded-proto': 'https' })
  })

  test('can be switched off, and leaves out what is not known', () => {
    const none = createHeaders()
    addForwardingHeaders(none, createRequest(), { via: false, xForwarded: false })
    expect({ ...none }).toEqual({})
    const unknown = createHeaders()
    addForwardingHeaders(unknown, createRequest({ remoteAddress: '', authority: '' }), { via: false })
    expect({ ...unknown }).toEqual({ 'x-forwarded-proto': 'http' })
  })

  test('names the claims that untrusted clients may not make', () => {
    for (const name of ['forwarded', 'x-forwarded-for', 'x-forwarded-anything', 'x-real-ip', 'x-original-url', 'x-http-method-override']) expect(isForwardingClaim(name)).toBe(true)
    for (const name of ['via', 'x-forwarded', 'host']) expect(isForwardingClaim(name)).toBe(false)
  })
})
