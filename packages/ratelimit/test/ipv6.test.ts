import { SocketAddress } from 'node:net'
import { describe, expect, test } from 'vitest'
import { randomOf } from '../src/conformance-tools.ts'
import { networkOf } from '../src/ipv6.ts'

describe('networkOf', () => {
  test.each([
    ['2001:db8::1', 64, '2001:db8:0:0::/64'],
    ['2001:db8:0:7:1:2:3:4', 64, '2001:db8:0:7::/64'],
    ['2001:DB8:0000:0007::', 64, '2001:db8:0:7::/64'],
    ['2001:db8::7:0:0:0:1', 64, '2001:db8:0:7::/64'],
    ['::1', 64, '0:0:0:0::/64'],
    ['::', 64, '0:0:0:0::/64'],
    ['1::', 64, '1:0:0:0::/64'],
    ['fe80::1%eth0', 64, 'fe80:0:0:0::/64'],
    ['2001:db8:ffff:ffff::1', 56, '2001:db8:ffff:ff00::/56'],
    ['2001:db8:ffff::1', 48, '2001:db8:ffff::/48'],
    ['ffff:ffff::', 1, '8000::/1'],
    ['2001:db8::1', 128, '2001:db8:0:0:0:0:0:1/128'],
    ['64:ff9b::192.0.2.1', 128, '64:ff9b:0:0:0:0:c000:201/128']
  ])('%s to %i bits', (address, bits, network) => {
    expect(networkOf(address, bits)).toBe(network)
  })

  test.each(['::ffff:192.0.2.1', '::FFFF:c000:0201', '0:0:0:0:0:ffff:192.0.2.1'])('%s is the IPv4 address in it', (address) => {
    expect(networkOf(address, 64)).toBe('192.0.2.1')
  })

  test.each([
    '192.0.2.1',
    '',
    'unix',
    '1:2:3',
    '1:2:3:4:5:6:7:8:9',
    '1::2::3',
    ':1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:',
    'g::1',
    '12345::1',
    '1:2:3:4:5:6:7:8::',
    '::1.2.3',
    '::256.1.1.1',
    '1:2:3:4:5:6:7:1.2.3.4',
    ':',
    ':::',
    '::%'
  ])('%j is given back or read without harm', (address) => {
    const network = networkOf(address, 64)
    if (address !== '::%') expect(network).toBe(address)
  })

  test('agrees with node:net on random addresses in random spellings', () => {
    const random = randomOf(5)
    for (let i = 0; i < 2000; i++) {
      const groups = Array.from({ length: 8 }, () => (random() < 0.4 ? 0 : Math.floor(random() * 65536)))
      // A mapped address is given as IPv4, which is tested above.
      if (groups.slice(0, 5).every((group) => group === 0)) groups[0] = 1
      const spelled = groups.map((group) => (random() < 0.5 ? group.toString(16).toUpperCase() : group.toString(16).padStart(4, '0'))).join(':')
      const compressed = new SocketAddress({ family: 'ipv6', address: spelled }).address
      const expected = `${groups
        .slice(0, 4)
        .map((group) => group.toString(16))
        .join(':')}::/64`
      expect([networkOf(spelled, 64), networkOf(compressed, 64)], compressed).toEqual([expected, expected])
    }
  })
})
