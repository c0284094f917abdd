import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { parseRedisUrl } from '../src/redis-url.ts'

test.each([
  ['redis://localhost', { host: 'localhost', port: 6379, db: 0 }],
  ['redis://10.0.0.7:7000/3', { host: '10.0.0.7', port: 7000, db: 3 }],
  ['redis://[::1]:7000', { host: '::1', port: 7000, db: 0 }],
  ['redis://:p%40ss@h/', { host: 'h', port: 6379, db: 0, password: 'p@ss' }],
  ['redis://me:p%3Ass@h:1', { host: 'h', port: 1, db: 0, username: 'me', password: 'p:ss' }],
  ['REDISS://cache.example.org', { host: 'cache.example.org', port: 6379, db: 0, tls: { servername: 'cache.example.org' } }],
  ['rediss://10.0.0.7', { host: '10.0.0.7', port: 6379, db: 0, tls: {} }],
  ['/run/redis.sock', { path: '/run/redis.sock' }]
])('%s', (url, address) => {
  expect(parseRedisUrl(url)).toEqual(address)
})

test.each([
  '',
  'me:hunter2',
  'http://me:hunter2@h',
  'redis://me:hunter2@',
  'redis://me:hunter2@h:99999',
  'redis://me:hunter2@h/x',
  'redis://me:hunter2@h/1?enableOfflineQueue=true',
  'redis://me:hunter2%@h',
  '//me:hunter2@h'
])('refuses %j without repeating it', (url) => {
  let thrown: unknown
  try {
    parseRedisUrl(url)
  } catch (error) {
    thrown = error
  }
  expect(thrown).toBeInstanceOf(TypeError)
  expect((thrown as Error).message).not.toContain('hunter2')
  expect(inspect({ ...(thrown as object) })).not.toContain('hunter2')
})
