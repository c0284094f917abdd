import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { startCeph } from '../src/ceph-cluster.ts'
import { rawExchange } from '../src/raw-client.ts'
import { isRunning } from './support/processes.ts'

test('stop ends all processes and removes their files, twice if need be', async () => {
  const temp = await mkdtemp(join(tmpdir(), 'cluster-'))
  vi.stubEnv('TMPDIR', temp)
  const cluster = await startCeph({ accessKeyId: 'key', secretAccessKey: 'secret' }).finally(() => vi.unstubAllEnvs())
  const pids = cluster.processes.map((child) => child.pid)
  expect(pids).toHaveLength(3)
  expect(pids).toContain(cluster.gateway.pid)
  expect(pids.every(isRunning)).toBe(true)
  expect(await readdir(temp)).toHaveLength(1)
  await Promise.all([cluster.stop(), cluster.stop()])
  expect(pids.some(isRunning)).toBe(false)
  expect(await readdir(temp)).toEqual([])
  await expect(rawExchange(cluster.gatewayPort, 'GET / HTTP/1.1\r\n\r\n')).rejects.toThrow(/ECONNREFUSED/)
  await rm(temp, { recursive: true })
})
