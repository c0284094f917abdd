import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { readmeExamples, startOrigin } from '@proxy/testing'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { resolveOptions } from '../src/options.ts'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))

const origin = await startOrigin((request, response) => response.setHeader('x-from', 'origin').end(`image ${request.url}`))
afterAll(() => origin.close())
beforeEach(() => {
  origin.requests.length = 0
})
/** An origin on loopback in place of the one that the README names. */
const here = { 'https://origin.example.org': origin.url }

test('every block of code is an example that is run here', () => {
  expect(examples.names).toEqual(['alone', 'node', 'hono'])
})

test('alone', async () => {
  const { response, image } = await examples.run('alone', ['response', 'image'], here)
  expect([(response as { status: number }).status, (image as Buffer).toString()]).toEqual([200, 'image /images/1.png'])
  expect(origin.requests[0]?.rawHeaders).toContain('https://www.example.org/')
})

test('in node:http', async () => {
  const server = (await examples.run('node', ['server'], here)).server as Server
  if (!server.listening) await once(server, 'listening')
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/images/2.png`)
  expect([answer.status, answer.headers.get('x-from'), await answer.text()]).toEqual([200, 'origin', 'image /images/2.png'])
  server.close()
  server.closeAllConnections()
  await once(server, 'close')
})

test('in Hono', async () => {
  const app = (await examples.run('hono', ['app'], here)).app as { request(path: string): Promise<Response> }
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
  const inReadme = new Map([...examples.text.matchAll(/^\| `([A-Z_]+)` +\| (\d+) /gm)].map(([, code, status]) => [code, status]))
  expect(Object.fromEntries(inReadme)).toEqual(Object.fromEntries(inSource))
})

test('the defaults in the table are those of the source', () => {
  const defaults = resolveOptions({}) as unknown as Record<string, unknown>
  for (const name of ['connectTimeoutMs', 'headersTimeoutMs', 'bodyTimeoutMs', 'connections', 'maxQueued', 'maxOrigins', 'keepAliveMs', 'maxHeaderBytes', 'via']) {
    const shown = new RegExp(`^\\| \`${name}\` +\\| \`([^\`]*)\``, 'm').exec(examples.text)?.[1]
    expect([name, shown?.replaceAll(/[_']/g, '')]).toEqual([name, String(defaults[name])])
  }
})
