import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Principal } from '@proxy/pipeline'
import { readmeExamples } from '@proxy/testing'
import { expect, test } from 'vitest'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))

test('every block of code is an example that is run here', () => {
  expect(examples.names).toEqual(['alone', 'node', 'hono'])
})

test('alone', async () => {
  const { alice, nobody } = await examples.run('alone', ['alice', 'nobody'])
  expect(alice).toEqual({ id: 'alice', scheme: 'bearer' } satisfies Principal)
  expect(nobody).toBeUndefined()
})

test('in node:http', async () => {
  const server = (await examples.run('node', ['server'])).server as Server
  try {
    if (!server.listening) await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const get = async (path: string, headers: Record<string, string> = {}) => {
      const response = await fetch(url + path, { headers })
      return [response.status, await response.text(), response.headers.get('www-authenticate')]
    }
    expect(await get('/', { authorization: `Basic ${Buffer.from('bob:correct horse').toString('base64')}` })).toEqual([200, 'hello bob', null])
    expect(await get('/', { 'x-api-key': 'c0ffee-7f3a' })).toEqual([200, 'hello monitoring', null])
    expect(await get('/')).toEqual([401, 'Unauthorized', 'Basic realm="example", charset="UTF-8", ApiKey realm="example"'])
    expect(await get('/health')).toEqual([200, 'hello stranger', null])
  } finally {
    server.close()
    server.closeAllConnections()
  }
})

test('in Hono', async () => {
  const app = (await examples.run('hono', ['app'])).app as { request(path: string, init?: RequestInit): Promise<Response> }
  expect(await (await app.request('/')).text()).toBe('open to all')
  expect((await app.request('/private/x')).status).toBe(401)
  const answer = await app.request('/private/x', { headers: { authorization: 'Bearer mF_9.B5f-4.1JqM' } })
  expect([answer.status, await answer.text()]).toEqual([200, 'alice'])
})
