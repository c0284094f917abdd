import { expect, test } from 'vitest'
import { neededPackages } from '../src/debian-packages.ts'

test('takes the family and its libraries of what an installation would add, and nothing else', () => {
  const plan = [
    'Reading package lists...',
    'Inst libc6 [2.36-9] (2.36-10 Debian:12/stable [amd64])',
    'Inst libjemalloc2 (5.3.0-1 Debian:12/stable [amd64])',
    'Inst lua-cjson (2.1.0 Debian:12/stable [amd64])',
    'Inst redis-tools (5:7.0.15-1 Debian:12/stable [amd64])',
    'Inst sudo (1.9 Debian:12/stable [amd64])',
    'Inst redis-server (5:7.0.15-1 Debian:12/stable [amd64]) []',
    'Conf libzstd1 (1.5 Debian:12/stable [amd64])'
  ].join('\n')
  expect(neededPackages(plan, ['redis-server'])).toEqual(['libjemalloc2', 'lua-cjson', 'redis-tools', 'redis-server'])
})
