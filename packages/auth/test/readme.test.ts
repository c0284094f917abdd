import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import { createRequire, stripTypeScriptTypes } from 'node:module'
import type { AddressInfo } from 'node:net'
import { pathToFileURL } from 'node:url'
import type { Principal } from '@proxy/pipeline'
import { expect, test } from 'vitest'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')

// Hono is a dependency of the package that has the adapter for it.
const hono = pathToFileURL(createRequire(new URL('../../pipeline/package.json', import.meta.url)).resolve('hono')).href

const modules: Record<string, () => Promise<unknown>> = {
  'node:http': () => import('node:http'),
  '@proxy/auth': () => import('../src/index.ts'),
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
  expect([...readme.matchAll(/^```ts(.*)$/gm)].map((match) => match[1]?.trim())).toEqual(['example=alone', 'example=node', 'example=hono'])
})

test('alone', async () => {
  const { alice, nobody } = await runExample('alone', 'alice', 'nobody')
  expect(alice).toEqual({ id: 'alice', scheme: 'bearer' } satisfies Principal)
  expect(nobody).toBeUndefined()
})

test('in node:http', async () => {
  const server = (await runExample('node', 'server')).server as Server
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
  const app = (await runExample('hono', 'app')).app as { request(path: string, init?: RequestInit): Promise<Response> }
  expect(await (await app.request('/')).text()).toBe('open to all')
  expect((await app.request('/private/x')).status).toBe(401)
  const answer = await app.request('/private/x', { headers: { authorization: 'Bearer mF_9.B5f-4.1JqM' } })
  expect([answer.status, await answer.text()]).toEqual([200, 'alice'])
})
