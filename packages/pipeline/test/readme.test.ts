import { once } from 'node:events'
import type { RequestListener, Server } from 'node:http'
import { readmeExamples } from '@proxy/testing'
import { expect, test } from 'vitest'
import { createHeaders, createRequest, type Handler, type Middleware, type ProxyResponse, readAll } from '../src/index.ts'
import type { RunningHost } from './adapter-suite.ts'
import { ask } from './client.ts'
import { listen, onServer } from './hosts.ts'
import { ManualSource } from './sources.ts'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))

test('every block of code is an example that is run here', () => {
  expect(examples.names).toEqual(['alone', 'middleware', 'node', 'express', 'fastify', 'hono', 'fetch'])
})

test('alone', async () => {
  const { answer, text } = await examples.run('alone', ['answer', 'text'])
  expect([(answer as ProxyResponse).status, (answer as ProxyResponse).headers['x-served-by'], text]).toEqual([200, 'example', 'hello /world'])
})

test('a middleware', async () => {
  const placeholder = (await examples.run('middleware', ['placeholder'])).placeholder as (options: { prefix: string; target: string }) => Middleware
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
  const server = (await examples.run('node', ['server'], { '.listen(8080)': ".listen(0, '127.0.0.1')" })).server as Server
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
  const app = (await examples.run('express', ['app'])).app as RequestListener
  await onServer(app, async (port) => {
    expect([await said(port, '/img/a?b'), await said(port, '/img')]).toEqual(['hello /a?b', 'hello /'])
  })
})

test('in Fastify', async () => {
  const app = (await examples.run('fastify', ['app'])).app as { ready(): Promise<unknown>; server: Server }
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
  const app = (await examples.run('hono', ['app'])).app as { fetch(request: Request): Response | Promise<Response> }
  await onServer(getRequestListener(app.fetch), async (port) => {
    expect([await said(port, '/img/a?b'), await said(port, '/health')]).toEqual(['hello /img/a?b', 'ok'])
  })
})

test('in fetch', async () => {
  const { answer } = await examples.run('fetch', ['answer'])
  expect(await (answer as Response).text()).toBe('hello /a?b')
})

test('the options table has the options that there are', () => {
  for (const option of ['trustedProxies', 'proxyName', 'onDone', 'remoteAddress', 'via', 'xForwarded']) expect(examples.text).toMatch(new RegExp(`^\\| \`${option}\` *\\|`, 'm'))
})
