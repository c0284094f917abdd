import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { RequestListener, Server } from 'node:http'
import { stripTypeScriptTypes } from 'node:module'
import { expect, test } from 'vitest'
import { createHeaders, createRequest, type Handler, type Middleware, type ProxyResponse, readAll } from '../src/index.ts'
import type { RunningHost } from './adapter-suite.ts'
import { ask } from './client.ts'
import { listen, onServer } from './hosts.ts'
import { ManualSource } from './sources.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')

/** What the examples may import: this package by its public names, and what it is mounted in. */
const modules: Record<string, () => Promise<unknown>> = {
  'node:http': () => import('node:http'),
  '@proxy/pipeline': () => import('../src/index.ts'),
  '@proxy/pipeline/node': () => import('../src/node.ts'),
  '@proxy/pipeline/hono': () => import('../src/hono.ts'),
  '@proxy/pipeline/fetch': () => import('../src/fetch.ts'),
  express: () => import('express'),
  fastify: () => import('fastify'),
  hono: () => import('hono')
}

const AsyncFunction = (async () => {}).constructor as new (...source: string[]) => (load: (name: string) => Promise<unknown>) => Promise<unknown>

/** Runs the README's block `name`, its server on a port of our own, and gives back the variables asked for. */
async function runExample(name: string, ...results: string[]): Promise<Record<string, unknown>> {
  const block = new RegExp(`^\`\`\`ts example=${name}\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(readme)?.[1]
  if (block === undefined) throw new Error(`README.md has no example ${name}`)
  const code = stripTypeScriptTypes(block)
    .replace(/^import \{(.*)\} from '(.*)'$/gm, (_, names: string, from: string) => `const {${names}} = await load('${from}')`)
    .replace(/^import (\w+) from '(.*)'$/gm, (_, local: string, from: string) => `const { default: ${local} } = await load('${from}')`)
    .replace(/^export /gm, '')
    .replace('.listen(8080)', ".listen(0, '127.0.0.1')")
  const load = (from: string): Promise<unknown> => modules[from]?.() ?? Promise.reject(new Error(`the example imports ${from}, which this test does not provide`))
  return (await new AsyncFunction('load', `${code}\nreturn { ${results.join(', ')} }`)(load)) as Record<string, unknown>
}

test('every block of code is an example that is run here', () => {
  expect([...readme.matchAll(/^```ts(.*)$/gm)].map((match) => match[1]?.trim().slice('example='.length))).toEqual(['alone', 'middleware', 'node', 'express', 'fastify', 'hono', 'fetch'])
})

test('alone', async () => {
  const { answer, text } = await runExample('alone', 'answer', 'text')
  expect([(answer as ProxyResponse).status, (answer as ProxyResponse).headers['x-served-by'], text]).toEqual([200, 'example', 'hello /world'])
})

test('a middleware', async () => {
  const placeholder = (await runExample('middleware', 'placeholder')).placeholder as (options: { prefix: string; target: string }) => Middleware
  const missing = new ManualSource()
  const asked: string[] = []
  const origin: Handler = async ({ target }) => {
    asked.push(target)
    if (target === '/img/none.png') return { status: 200, headers: createHeaders(), body: Buffer.from('none') }
    return { status: 404, headers: createHeaders(), body: missing }
  }
  const proxy = placeholder({ prefix: '/img/', target: '/img/none.png' })(origin)
  const answer = await proxy(createRequest({ target: '/img/a.png' }))
  expect([answer.status, String(await readAll(answer.body, 10)), missing.starts, missing.discards]).toEqual([200, 'none', 0, 1])
  expect((await proxy(createRequest({ target: '/other' }))).status).toBe(404)
  expect((await proxy(createRequest({ target: '/img/b.png', method: 'POST', body: Buffer.from('x') }))).status).toBe(404)
  expect(asked).toEqual(['/img/a.png', '/img/none.png', '/other', '/img/b.png'])
})

const said = async (port: number, path: string): Promise<string> => (await ask(port, { path })).body.toString()

test('in node:http', async () => {
  const server = (await runExample('node', 'server')).server as Server
  if (!server.listening) await once(server, 'listening')
  const address = server.address() as { port: number }
  try {
    expect(await said(address.port, '/world?a')).toBe('hello /world?a')
    expect(server.listenerCount('checkContinue')).toBe(1)
  } finally {
    server.close()
    server.closeAllConnections()
  }
})

test('in Express', async () => {
  const app = (await runExample('express', 'app')).app as RequestListener
  await onServer(app, async (port) => {
    expect([await said(port, '/img/a?b'), await said(port, '/img')]).toEqual(['hello /a?b', 'hello /'])
  })
})

test('in Fastify', async () => {
  const app = (await runExample('fastify', 'app')).app as { ready(): Promise<unknown>; server: Server }
  await app.ready()
  let running: RunningHost | undefined
  try {
    running = await listen(app.server)
    expect(await said(running.port, '/a?b')).toBe('hello /a?b')
    expect((await ask(running.port, { method: 'POST', path: '/a', body: '{', headers: { 'content-type': 'application/json' } })).status).toBe(200)
  } finally {
    await running?.close()
  }
})

test('in Hono', async () => {
  const { getRequestListener } = await import('@hono/node-server')
  const app = (await runExample('hono', 'app')).app as { fetch(request: Request): Response | Promise<Response> }
  await onServer(getRequestListener(app.fetch), async (port) => {
    expect([await said(port, '/img/a?b'), await said(port, '/health')]).toEqual(['hello /img/a?b', 'ok'])
  })
})

test('in fetch', async () => {
  const { answer } = await runExample('fetch', 'answer')
  expect(await (answer as Response).text()).toBe('hello /a?b')
})

test('the options table has the options that there are', () => {
  for (const option of ['trustedProxies', 'proxyName', 'onDone', 'remoteAddress', 'via', 'xForwarded']) expect(readme).toMatch(new RegExp(`^\\| \`${option}\` *\\|`, 'm'))
})
