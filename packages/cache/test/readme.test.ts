import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import { createRequire, stripTypeScriptTypes } from 'node:module'
import type { AddressInfo } from 'node:net'
import { pathToFileURL } from 'node:url'
import { createRequest, type Middleware } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import type { MemoryStore } from '../src/index.ts'
import { ask, headers } from './support.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')

// Hono is a dependency of the package that has the adapter for it.
const hono = pathToFileURL(createRequire(new URL('../../pipeline/package.json', import.meta.url)).resolve('hono')).href

/** Cases that the example registers with what it takes for node:test. */
const cases: [string, () => Promise<void>][] = []

const modules: Record<string, () => Promise<unknown>> = {
  'node:http': () => import('node:http'),
  'node:test': async () => ({ test: (name: string, run: () => Promise<void>) => cases.push([name, run]) }),
  '@proxy/cache': () => import('../src/index.ts'),
  '@proxy/cache/conformance': () => import('../src/conformance.ts'),
  '@proxy/pipeline': () => import('@proxy/pipeline'),
  '@proxy/pipeline/node': () => import('@proxy/pipeline/node'),
  '@proxy/pipeline/hono': () => import('@proxy/pipeline/hono'),
  hono: () => import(hono)
}

const AsyncFunction = (async () => {}).constructor as new (...source: string[]) => (load: (name: string) => Promise<unknown>) => Promise<unknown>

/** Runs the README's block `name` and gives back the variables asked for. */
async function runExample(name: string, ...results: string[]): Promise<Record<string, unknown>> {
  const block = new RegExp(`^\`\`\`ts example=${name}\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(readme)?.[1]
  if (block === undefined) throw new Error(`README.md has no example ${name}`)
  const code = stripTypeScriptTypes(block).replace(/^import \{(.*)\} from '(.*)'$/gm, (_, names: string, from: string) => `const {${names}} = await load('${from}')`)
  const load = (from: string): Promise<unknown> => modules[from]?.() ?? Promise.reject(new Error(`the example imports ${from}, which this test does not provide`))
  return (await new AsyncFunction('load', `${code}\nreturn { ${results.join(', ')} }`)(load)) as Record<string, unknown>
}

test('every block of code is an example that is run here', () => {
  expect([...readme.matchAll(/^```ts(.*)$/gm)].map((match) => match[1]?.trim())).toEqual(['example=alone', 'example=node', 'example=hono', 'example=tiers', 'example=conformance'])
})

test('alone', async () => {
  const { stored, text, entries } = await runExample('alone', 'stored', 'text', 'entries')
  expect([stored, text, entries]).toEqual([true, 'hello', 1])
})

test('in node:http', async () => {
  const server = (await runExample('node', 'server')).server as Server
  try {
    if (!server.listening) await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const first = await ask(port, '/a')
    expect(first.cacheStatus).toMatch(/^proxy; fwd=uri-miss; stored; ttl=(60|5\d)$/)
    const second = await ask(port, '/a')
    expect(second.body.toString()).toBe(first.body.toString())
    expect(second.cacheStatus).toMatch(/^proxy; hit; ttl=/)
    expect((await ask(port, '/b')).body.toString()).not.toBe(first.body.toString())
  } finally {
    server.close()
    server.closeAllConnections()
  }
})

test('in Hono', async () => {
  const app = (await runExample('hono', 'app')).app as { request(path: string): Promise<Response> }
  expect(await (await app.request('/')).text()).toBe('not cached')
  const first = await app.request('/images/x.png')
  expect([first.status, await first.text()]).toEqual([404, 'no such image'])
  expect(first.headers.get('cache-status')).toMatch(/^proxy; fwd=uri-miss; stored; ttl=(60|5\d)$/)
  const second = await app.request('/images/x.png')
  expect([second.status, await second.text()]).toEqual([404, 'no such image'])
  expect(second.headers.get('cache-status')).toMatch(/^proxy; hit; ttl=(60|5\d); detail=negative$/)
})

test('tiers', async () => {
  const example = await runExample('tiers', 'cached', 'failures', 'responses')
  const [failures, responses] = [example.failures as MemoryStore, example.responses as MemoryStore]
  const handler = (example.cached as Middleware)(async ({ target }) => ({ status: target === '/none' ? 404 : 200, headers: headers({ 'cache-control': 'max-age=60' }), body: Buffer.from('x') }))
  for (const target of ['/none', '/a']) {
    await handler(createRequest({ target }))
    const hit = await handler(createRequest({ target }))
    expect(hit.headers['cache-status']).toContain('hit')
  }
  expect([failures.stats().entries, responses.stats().entries]).toEqual([1, 1])
})

describe('a store of your own', async () => {
  await runExample('conformance')
  test('the suite has cases', () => expect(cases.length).toBeGreaterThan(40))
  for (const [name, run] of cases) test(name, run)
})

describe('tables', () => {
  test('list every option of cache(), with its default', () => {
    const source = readFileSync(new URL('../src/middleware.ts', import.meta.url), 'utf8')
    const options = /export interface CacheOptions \{([\s\S]*?)^\}/m.exec(source)?.[1] ?? ''
    for (const [, name] of options.matchAll(/^ {2}readonly (\w+)/gm)) expect(readme).toMatch(new RegExp(`^\\| \`${name as string}[\`.]`, 'm'))
  })

  test('list every reason not to store', () => {
    const source = readFileSync(new URL('../src/policy.ts', import.meta.url), 'utf8')
    const reasons = /export type NotStoredReason = (.*)/.exec(source)?.[1] ?? ''
    for (const [, reason] of reasons.matchAll(/'([\w-]+)'/g)) expect(readme).toContain(`\`${reason as string}\``)
  })
})
