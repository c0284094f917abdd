import { Context, createHeaders, createRequest, principal } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { byClientAddress, byHeader, byPrincipal, composite } from '../src/index.ts'

const from = (remoteAddress: string) => createRequest({ remoteAddress })
const withFields = (fields: Record<string, string | string[]>) => createRequest({ headers: Object.assign(createHeaders(), fields), remoteAddress: '192.0.2.9' })
const as = (id: string) => createRequest({ remoteAddress: '192.0.2.9', context: Context.empty.with(principal, { id, scheme: 'bearer' }) })

describe('byClientAddress', () => {
  test('is the address; of IPv6 the /64, or what is asked for', () => {
    expect(byClientAddress()(from('192.0.2.9'))).toBe('192.0.2.9')
    expect(byClientAddress()(from('2001:db8::1'))).toBe(byClientAddress()(from('2001:db8::ffff:1:2')))
    expect(byClientAddress()(from('2001:db8::1'))).not.toBe(byClientAddress()(from('2001:db8:0:1::1')))
    const by48 = byClientAddress({ ipv6PrefixBits: 48 })
    expect(by48(from('2001:db8::1'))).toBe(by48(from('2001:db8:0:1::1')))
    const exact = byClientAddress({ ipv6PrefixBits: 128 })
    expect(exact(from('2001:db8::1'))).not.toBe(exact(from('2001:db8::2')))
  })

  test('an address that is not known is one client, not a way round the limit', () => {
    expect(byClientAddress()(from(''))).toBe('')
  })

  test('refuses a prefix out of range', () => {
    for (const ipv6PrefixBits of [0, 129, 1.5, Number.NaN]) expect(() => byClientAddress({ ipv6PrefixBits })).toThrow(RangeError)
  })
})

describe('byHeader', () => {
  test('is the value, whatever the case of the name; nothing without the field', () => {
    expect(byHeader('X-Tenant')(withFields({ 'x-tenant': 'a' }))).toBe('a')
    expect(byHeader('x-tenant')(withFields({ 'x-tenant': ['a', 'b'] }))).toBe('a, b')
    expect(byHeader('x-tenant')(withFields({}))).toBeUndefined()
  })
})

describe('byPrincipal', () => {
  test('is who was authenticated, else the address', () => {
    expect(byPrincipal()(as('anna'))).toBe('@anna')
    expect(byPrincipal()(from('192.0.2.9'))).toBe('192.0.2.9')
    expect(byPrincipal({ ipv6PrefixBits: 32 })(from('2001:db8:1::'))).toBe('2001:db8::/32')
  })

  test('a principal named like an address does not take the address its limit', () => {
    expect(byPrincipal()(as('192.0.2.1'))).not.toBe(byPrincipal()(from('192.0.2.1')))
  })
})

describe('composite', () => {
  const by = composite(byHeader('a'), byHeader('b'))

  test('counts each combination for itself', () => {
    const keys = [
      { a: 'x', b: 'y' },
      { a: 'y', b: 'x' },
      { a: 'xy', b: '' },
      { a: '', b: 'xy' },
      { a: 'x' },
      { b: 'x' },
      { a: 'x', b: '-' },
      { a: 'x1:y', b: '' },
      { a: 'x', b: '1:y' },
      { a: 'x-' }
    ].map((fields) => by(withFields(fields as Record<string, string>)))
    expect(new Set(keys).size).toBe(keys.length)
    expect(by(withFields({ a: 'x', b: 'y' }))).toBe(keys[0])
  })

  test('a missing part is no way round the limit, but nothing at all is not limited', () => {
    expect(by(withFields({ a: 'x' }))).toBeTypeOf('string')
    expect(by(withFields({}))).toBeUndefined()
  })
})
