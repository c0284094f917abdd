import { describe, expect, it } from 'vitest'
import { createBalancer } from '../src/index.ts'

const targetsOf = (...targets: Parameters<typeof createBalancer>[0]['targets']) => createBalancer({ targets }).targets

describe('targets', () => {
  it('have a normalised origin, a name, a weight and an index', () => {
    const targets = targetsOf({ origin: 'HTTPS://Api.Example.ORG:443/' }, { origin: 'http://10.0.0.7:8080', name: 'blue', weight: 2 }, { origin: 'http://[2001:db8::1]:81' })
    expect(targets.map(({ origin, name, weight, index }) => ({ origin, name, weight, index }))).toEqual([
      { origin: 'https://api.example.org', name: 'api.example.org', weight: 1, index: 0 },
      { origin: 'http://10.0.0.7:8080', name: 'blue', weight: 2, index: 1 },
      { origin: 'http://[2001:db8::1]:81', name: '[2001:db8::1]:81', weight: 1, index: 2 }
    ])
  })

  it.each(['', 'example.org', 'example.org:80', '//example.org', 'ftp://example.org', 'http://example.org/path', 'http://example.org/?q', 'http://example.org/#f', 'http://user:pass@example.org'])(
    'refuses %j as an origin',
    (origin) => {
      expect(() => targetsOf({ origin })).toThrow(TypeError)
    }
  )

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])('refuses the weight %s', (weight) => {
    expect(() => targetsOf({ origin: 'http://a', weight })).toThrow(RangeError)
  })

  it('refuses an origin that is listed twice, and two targets of one name', () => {
    expect(() => targetsOf({ origin: 'http://a' }, { origin: 'http://A:80/' })).toThrow(/twice/)
    expect(() => targetsOf({ origin: 'http://a' }, { origin: 'https://a' })).toThrow(/named "a"/)
    expect(() => targetsOf({ origin: 'http://a', name: '' })).toThrow(/empty name/)
  })

  it('may be named like their origin', () => {
    expect(targetsOf({ origin: 'http://a', name: 'http://a' })[0]?.name).toBe('http://a')
  })
})
