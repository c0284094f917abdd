import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import { createRequire, stripTypeScriptTypes } from 'node:module'
import type { AddressInfo } from 'node:net'
import { pathToFileURL } from 'node:url'
import { startOrigin } from '@proxy/testing'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { resolveOptions } from '../src/options.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')

// Hono is a dependency of the package that has the adapter for it.
const hono = pathToFileURL(createRequire(new URL('../../pipeline/package.json', import.meta.url)).resolve('hono')).href

const modules: Record<string, () => Promise<unknown>> = {
  'node:http': () => import('node:http'),
  '@proxy/upstream': () => import('../src/index.ts'),
  '@proxy/pipeline': () => import('@proxy/pipeline'),
  '@proxy/pipeline/node': () => import('@proxy/pipeline/node'),
  '@proxy/pipeline/hono': () => import('@proxy/pipeline/hono'),
  hono: () => import(hono)
}

const origin = await startOrigin((request, response) => response.setHeader('x-from', 'origin').end(`image ${request.url}`))
afterAll(() => origin.close())
beforeEach(() => {
  origin.requests.length = 0
})

const AsyncFunction = (async () => {}).constructor as new (...source: string[]) => (load: (name: string) => Promise<unknown>) => Promise<unknown>

/** Runs the README's block `name`, with an origin on loopback in place of the one it names, and gives back the variables asked for. */
async function runExample(name: string, ...results: string[]): Promise<Record<string, unknown>> {
  const block = new RegExp(`^\`\`\`ts example=${name}\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(readme)?.[1]
  if (block === undefined) throw new Error(`README.md has no example ${name}`)
  expect(block).toContain('https://origin.example.org')
  const code = stripTypeScriptTypes(block)
    .replaceAll('https://origin.example.org', origin.url)
    .replace(/^import \{(.*)\} from '(.*)'$/gm, (_, names: string, from: string) => `const {${names}} = await load('${from}')`)
  const load = (from: string): Promise<unknown> => modules[from]?.() ?? Promise.reject(new Error(`the example imports ${from}, which this test does not provide`))
  return (await new AsyncFunction('load', `${code}\nreturn { ${results.join(', ')} }`)(load)) as Record<string, unknown>
}

test('every block of code is an example that is run here', () => {
  expect([...readme.matchAll(/^```ts(.*)$/gm)].map((match) => match[1]?.trim())).toEqual(['example=alone', 'example=node', 'example=hono'])
})

test('alone', async () => {
  const { response, image } = await runExample('alone', 'response', 'image')
  expect([(response as { status: number }).status, (image as Buffer).toString()]).toEqual([200, 'image /images/1.png'])
  expect(origin.requests[0]?.rawHeaders).toContain('https://www.example.org/')
})

test('in node:http', async () => {
  const server = (await runExample('node', 'server')).server as Server
  if (!server.listening) await once(server, 'listening')
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/images/2.png`)
  expect([answer.status, answer.headers.get('x-from'), await answer.text()]).toEqual([200, 'origin', 'image /images/2.png'])
  server.close()
  server.closeAllConnections()
  await once(server, 'close')
})

test('in Hono', async () => {
  const app = (await runExample('hono', 'app')).app as { request(path: string): Promise<Response> }
  expect(await (await app.request('/health')).text()).toBe('well')
  const answer = await app.request('/images/3.png')
  expect([answer.status, answer.headers.get('x-from'), await answer.text()]).toEqual([200, 'origin', 'image /images/3.png'])
})

test('every error code of the source is in the table, with its status', () => {
  const sources = readdirSync(new URL('../src/', import.meta.url)).map((file) => readFileSync(new URL(`../src/${file}`, import.meta.url), 'utf8'))
  const inSource = new Map<string, string>()
  for (const source of sources) {
    for (const [, status, code] of source.matchAll(/status: (\d+), code: '(\w+)'/g)) inSource.set(code as string, status as string)
    for (const [, code, status] of source.matchAll(/code: '(\w+)', status: (\d+)/g)) inSource.set(code as string, status as string)
  }
  // Made by the pipeline.
  inSource.set('CLIENT_ABORTED', '499')
  const inReadme = new Map([...readme.matchAll(/^\| `([A-Z_]+)` +\| (\d+) /gm)].map(([, code, status]) => [code, status]))
  expect(Object.fromEntries(inReadme)).toEqual(Object.fromEntries(inSource))
})

test('the defaults in the table are those of the source', () => {
  const defaults = resolveOptions({}) as unknown as Record<string, unknown>
  for (const name of ['connectTimeoutMs', 'headersTimeoutMs', 'bodyTimeoutMs', 'connections', 'maxQueued', 'maxOrigins', 'keepAliveMs', 'maxHeaderBytes', 'via']) {
    const shown = new RegExp(`^\\| \`${name}\` +\\| \`([^\`]*)\``, 'm').exec(readme)?.[1]
    expect([name, shown?.replaceAll(/[_']/g, '')]).toEqual([name, String(defaults[name])])
  }
})
