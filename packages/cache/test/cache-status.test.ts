import { expect, test } from 'vitest'
import { addCacheStatus, forwardedStatus } from '../src/cache-status.ts'
import { headers } from './support.ts'

test.each([
  [{ fwd: 'uri-miss' }, 'edge; fwd=uri-miss'],
  [{ fwd: 'uri-miss', stored: true, ttl: 60 }, 'edge; fwd=uri-miss; stored; ttl=60'],
  [{ fwd: 'uri-miss', stored: false }, 'edge; fwd=uri-miss'],
  [{ fwd: 'stale', fwdStatus: 304, ttl: 0 }, 'edge; fwd=stale; fwd-status=304; ttl=0'],
  [{ fwd: 'stale', collapsed: true, ttl: -4 }, 'edge; fwd=stale; collapsed; ttl=-4'],
  [{ fwd: 'vary-miss', detail: 'private' }, 'edge; fwd=vary-miss; detail=private'],
  [{ fwd: 'bypass' }, 'edge; fwd=bypass']
] as const)('%j', (status, expected) => expect(forwardedStatus('edge', status)).toBe(expected))

test('a cache adds itself after those nearer to the origin', () => {
  const map = headers()
  addCacheStatus(map, 'a; hit')
  addCacheStatus(map, 'b; fwd=miss')
  expect(map['cache-status']).toBe('a; hit, b; fwd=miss')
  const lines = headers({ 'cache-status': ['x', 'y; hit'] })
  addCacheStatus(lines, 'z')
  expect(lines['cache-status']).toBe('x, y; hit, z')
})
