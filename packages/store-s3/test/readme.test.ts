import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import { createRequire, stripTypeScriptTypes } from 'node:module'
import type { AddressInfo } from 'node:net'
import { pathToFileURL } from 'node:url'
import { sharedS3 } from '@proxy/testing'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { S3Store } from '../src/index.ts'
import { patient, service } from './support.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')

// Hono is a dependency of the package that has the adapter for it.
const hono = pathToFileURL(createRequire(new URL('../../pipeline/package.json', import.meta.url)).resolve('hono')).href

const modules: Record<string, () => Promise<unknown>> = {
  'node:http': () => import('node:http'),
  '@proxy/cache': () => import('@proxy/cache'),
  '@proxy/pipeline': () => import('@proxy/pipeline'),
  '@proxy/pipeline/node': () => import('@proxy/pipeline/node'),
  '@proxy/pipeline/hono': () => import('@proxy/pipeline/hono'),
  '@proxy/store-s3': () => import('../src/index.ts'),
  hono: () => import(hono)
}

const AsyncFunction = (async () => {}).constructor as new (...source: string[]) => (load: (name: string) => Promise<unknown>) => Promise<unknown>

/** Runs the README's block `name` and gives back the variables asked for. */
async function runExample(name: string, ...results: string[]): Promise<Record<string, unknown>> {
  const block = new RegExp(`^\`\`\`ts example=${name}\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(readme)?.[1]
  if (block === undefined) throw new Error(`README.md has no example ${name}`)
  const code = stripTypeScriptTypes(block)
    .replace(/^import \{(.*)\} from '(.*)'$/gm, (_, names: string, from: string) => `const {${names}} = await load('${from}')`)
    // A busy machine may miss the default deadline, which is not what the examples are about.
    .replace(/new S3Store\(\{/, `new S3Store({ firstByteTimeoutMs: ${patient.firstByteTimeoutMs},`)
  const load = (from: string): Promise<unknown> => modules[from]?.() ?? Promise.reject(new Error(`the example imports ${from}, which this test does not provide`))
  return (await new AsyncFunction('load', `${code}\nreturn { ${results.join(', ')} }`)(load)) as Record<string, unknown>
}

beforeAll(async () => {
  const at = await service()
  await (await sharedS3()).createBucket('http-cache')
  vi.stubEnv('S3_ENDPOINT', at.endpoint)
  vi.stubEnv('S3_ACCESS_KEY', at.accessKeyId)
  vi.stubEnv('S3_SECRET_KEY', at.secretAccessKey)
})
afterAll(() => vi.unstubAllEnvs())

test('every block of code is an example that is run here', () => {
  expect([...readme.matchAll(/^```ts(.*)$/gm)].map((match) => match[1]?.trim())).toEqual(['example=alone', 'example=node', 'example=hono'])
})

test('alone', async () => {
  const { stored, text, store } = await runExample('alone', 'stored', 'text', 'store')
  expect([stored, text]).toEqual([true, 'Hello'])
  await (store as S3Store).close()
})

test('in node:http', async () => {
  const example = await runExample('node', 'server', 'store')
  const server = example.server as Server
  const store = example.store as S3Store
  try {
    if (!server.listening) await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/${Date.now()}`
    const answers = [await (await fetch(url)).text()]
    await vi.waitUntil(() => store.stats().writes > 0, { timeout: 10_000 })
    answers.push(await (await fetch(url)).text())
    expect(answers).toEqual(['answer 1', 'answer 1'])
    expect(store.stats().hits).toBeGreaterThan(0)
  } finally {
    server.close()
    server.closeAllConnections()
    await store.close()
  }
})

test('in Hono', async () => {
  const example = await runExample('hono', 'app', 'store')
  const app = example.app as { request(path: string): Promise<Response> }
  const store = example.store as S3Store
  const path = `http://example.org/images/${Date.now()}.svg`
  const first = await app.request(path)
  expect([first.status, first.headers.get('content-type'), await first.text()]).toEqual([200, 'image/svg+xml', '<svg/>'])
  await vi.waitUntil(() => store.stats().writes > 0, { timeout: 10_000 })
  expect(await (await app.request(path)).text()).toBe('<svg/>')
  expect(store.stats().hits).toBeGreaterThan(0)
  await store.close()
})

test('the table names every option, with its default', async () => {
  const { resolveOptions } = await import('../src/options.ts')
  const resolved = resolveOptions({ bucket: 'b' })
  const rows = readme.slice(readme.indexOf('## Options'), readme.indexOf('`stats()`')).replace(/ +/g, ' ')
  const named = new Set([...rows.matchAll(/`(\w+)`/g)].map((match) => match[1]))
  for (const option of [...Object.keys(resolved), 'accessKeyId', 'secretAccessKey', 'endpoint', 'breaker']) {
    if (option !== 'failureThreshold' && option !== 'openMs') expect([option, named.has(option)]).toEqual([option, true])
  }
  for (const option of ['firstByteTimeoutMs', 'idleTimeoutMs', 'requestTimeoutMs', 'connectTimeoutMs', 'maxReadConnections', 'maxWriteConnections', 'closeTimeoutMs', 'maxAttempts'] as const) {
    expect(rows).toContain(`| \`${option}\` | ${resolved[option]} |`)
  }
})
