import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { CacheStore } from '@proxy/cache'
import { sampleMeta } from '@proxy/cache/conformance'
import { rawExchange, readmeExamples } from '@proxy/testing'
import { expect, test, vi } from 'vitest'
import { DiskPurgeLog, type DiskStore } from '../src/index.ts'
import { resolveOptions } from '../src/options.ts'
import { folder } from './support.ts'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))
const here = async (): Promise<Record<string, string>> => ({ '/var/cache/proxy': await folder() })

test('every block of code is an example that is run here', () => {
  expect(examples.names).toEqual(['alone', 'node', 'hono', 'purges'])
})

test('alone', async () => {
  const { stored, text, store } = await examples.run('alone', ['stored', 'text', 'store'], await here())
  expect([stored, text]).toEqual([true, 'Hello'])
  await (store as DiskStore).close()
})

test('in node:http, behind memory; after a restart the disk has it', async () => {
  const replaced = await here()
  for (const round of ['first', 'second']) {
    const example = await examples.run('node', ['server', 'store', 'disk'], replaced)
    const server = example.server as Server
    const disk = example.disk as DiskStore
    try {
      if (!server.listening) await once(server, 'listening')
      const { port } = server.address() as AddressInfo
      // The key holds the authority: the same one for both servers.
      const request = 'GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n'
      for (let i = 0; i < 2; i++) expect(String(await rawExchange(port, request))).toContain('answer 1')
      if (round === 'first') await vi.waitUntil(() => disk.stats().writes > 0, { timeout: 10_000 })
      // The first answer came from the disk; memory has it since.
      else expect([disk.stats().hits > 0, disk.stats().writes]).toEqual([true, 0])
    } finally {
      server.close()
      server.closeAllConnections()
      await (example.store as CacheStore).close()
    }
  }
})

test('in Hono', async () => {
  const example = await examples.run('hono', ['app', 'store'], await here())
  const app = example.app as { request(path: string): Promise<Response> }
  const store = example.store as DiskStore
  const first = await app.request('http://example.org/images/a.svg')
  expect([first.status, first.headers.get('content-type'), await first.text()]).toEqual([200, 'image/svg+xml', '<svg/>'])
  await vi.waitUntil(() => store.stats().writes > 0, { timeout: 10_000 })
  expect(await (await app.request('http://example.org/images/a.svg')).text()).toBe('<svg/>')
  expect(store.stats().hits).toBeGreaterThan(0)
  await store.close()
})

test('purges hold after a restart', async () => {
  const replaced = await here()
  const meta = sampleMeta({ url: 'https://images.example.org/2026/a.png', namespace: 'default', requestTime: Date.now() - 60_000 })
  const { layer } = await examples.run('purges', ['layer'], replaced)
  expect(layer).toBeInstanceOf(Function)
  const log = new DiskPurgeLog({ directory: replaced['/var/cache/proxy'] as string })
  await log.prepare()
  expect(log.verdict(meta).hardAt).toBeGreaterThan(meta.requestTime)
  await log.close()
})

test('the table names every option of the store, with its default', () => {
  const resolved = resolveOptions({ directory: '/x', maxBytes: 2 ** 30 })
  const { text } = examples
  const rows = text.slice(text.indexOf('## Options'), text.indexOf('Options that cannot')).replace(/ +/g, ' ')
  const named = [...rows.matchAll(/^\| `(\w+)` \|/gm)].map((match) => match[1])
  const { failureThreshold, openMs, ...others } = resolved
  expect(new Set(named)).toEqual(new Set([...Object.keys(others), 'breaker']))
  for (const option of ['maxOpenFiles', 'maxQueuedOperations', 'fsync', 'readTimeoutMs', 'writeTimeoutMs', 'holdTimeoutMs', 'closeTimeoutMs'] as const) {
    expect(rows).toContain(`| \`${option}\` | ${resolved[option]} |`)
  }
  expect(rows).toContain(`| \`breaker\` | \`{ failureThreshold: ${failureThreshold}, openMs: ${openMs} }\` |`)
  expect([resolved.maxEntryBytes, resolved.maxPendingBytes]).toEqual([2 ** 27, 64 * 1024 * 1024])
})
