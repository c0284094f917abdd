import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createRequest, type Middleware } from '@proxy/pipeline'
import { readmeExamples, startRedis } from '@proxy/testing'
import type { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Decision } from '../src/index.ts'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))

describe('README', () => {
  test('has no code that is not run here', () => {
    expect(examples.names).toEqual(['alone', 'node', 'hono', 'redis', 'conformance'])
  })

  test('alone', async () => {
    const { first, denied } = (await examples.run('alone', ['first', 'denied'])) as { first: Decision; denied: Decision }
    expect(first).toEqual({ allowed: true, limit: 10, remaining: 9, resetAfterMs: 600, retryAfterMs: 0, policy: { name: 'default', limit: 10, windowMs: 6000 } })
    expect(denied).toMatchObject({ allowed: false, remaining: 0 })
    expect(denied.retryAfterMs).toBeLessThanOrEqual(600)
  })

  test('node', async () => {
    const server = (await examples.run('node', ['server'], { '.listen(8080)': ".listen(0, '127.0.0.1')" })).server as Server
    if (!server.listening) await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
    for (let i = 0; i < 100; i++) expect(await (await fetch(url)).text()).toBe('hello\n')
    const denied = await fetch(url)
    expect([denied.status, await denied.text(), denied.headers.get('ratelimit-policy')]).toEqual([429, 'Too Many Requests\n', '"default";q=100;w=60'])
    expect(denied.headers.get('ratelimit')).toBe(`"default";r=0;t=${denied.headers.get('retry-after')}`)
    server.close()
    server.closeAllConnections()
  })

  test('hono', async () => {
    const app = (await examples.run('hono', ['app'])).app as { request(path: string, init?: RequestInit): Promise<Response> }
    const statuses = async (tenant: string) => {
      const responses = await Promise.all(Array.from({ length: 200 }, async () => app.request('/api/x', { headers: { 'x-tenant': tenant } })))
      return responses.filter((response) => response.status === 429).length
    }
    for (const tenant of ['a', 'b']) {
      const denied = await statuses(tenant)
      expect(denied).toBeGreaterThan(0)
      expect(denied).toBeLessThanOrEqual(170)
    }
    expect((await app.request('/api/x')).status).toBe(200)
  })

  test('redis', async () => {
    const server = await startRedis()
    vi.stubEnv('REDIS_URL', server.url)
    const { client, limited } = (await examples.run('redis', ['client', 'limited'])) as { client: Redis; limited: Middleware }
    await client.ping()
    const handler = limited(async () => ({ status: 200, headers: {}, body: null }))
    expect((await handler(createRequest())).status).toBe(200)
    expect(await client.exists('rl:bucket:api:127.0.0.1')).toBe(1)
    vi.unstubAllEnvs()
    client.disconnect()
    await server.stop()
  })

  test('conformance', () => {
    // node:test runs when its process does nothing else, so the example gets one of its own, on the sources of this package.
    const dir = mkdtempSync(join(tmpdir(), 'readme-'))
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
    const file = join(dir, 'conformance.test.ts')
    const source = (name: string) => fileURLToPath(new URL(`../src/${name}.ts`, import.meta.url))
    const code = examples
      .code('conformance')
      .replace("'@proxy/ratelimit'", `'${source('index')}'`)
      .replace("'@proxy/ratelimit/conformance'", `'${source('conformance')}'`)
    writeFileSync(file, code)
    const { NODE_OPTIONS: _, ...env } = process.env
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--test-reporter=tap', file], { encoding: 'utf8', env, timeout: 60_000 })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toMatch(/^# pass 30$/m)
    expect(stdout).toMatch(/^# fail 0$/m)
  })
})
