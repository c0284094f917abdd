import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { startOrigin } from '@proxy/testing'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { ask, type RunningProxy, startProxy, until } from './helpers.ts'

const hints = { link: '</style.css>; rel=preload; as=style', 'x-hint': 'test' }

/** Everything that a client reads on one connection, which it leaves open until the test ends. */
interface Reading {
  readonly text: () => string
  /** Heads of the answers so far. */
  readonly statuses: () => number[]
  send(path: string, version?: string): void
}

let proxy: RunningProxy
/** The origin's answers that are held back, by path; `/now/…` is not. */
let held: Map<string, ServerResponse[]>
let asked: string[]

beforeEach(async () => {
  held = new Map()
  asked = []
  const origin = await startOrigin((request, response) => {
    const path = request.url as string
    asked.push(path)
    if (path.startsWith('/processing')) response.writeProcessing()
    response.writeEarlyHints(hints)
    if (path.startsWith('/twice')) response.writeEarlyHints({ link: '</second.css>; rel=preload' })
    if (path.includes('/now')) finish(path, response)
    else held.set(path, [...(held.get(path) ?? []), response])
  })
  onTestFinished(() => origin.close())
  proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
})

function finish(path: string, response: ServerResponse): void {
  const control = path.startsWith('/private') ? 'no-store' : path.startsWith('/refreshed') ? 'max-age=0, stale-while-revalidate=60' : 'max-age=60'
  response.writeHead(path.startsWith('/fails') ? 503 : 200, { 'cache-control': control, 'content-length': '5' }).end('final')
}

function release(path: string): void {
  for (const response of held.get(path) ?? []) finish(path, response)
  held.delete(path)
}

async function read(): Promise<Reading> {
  const socket = connect({ port: Number(new URL(proxy.url).port), host: '127.0.0.1' })
  onTestFinished(() => void socket.destroy())
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  await once(socket, 'connect')
  return {
    text: () => text,
    statuses: () => [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status)),
    send: (path, version = '1.1') => void socket.write(`GET ${path} HTTP/${version}\r\nHost: a.example\r\n\r\n`)
  }
}

const count = (text: string, part: string): number => text.split(part).length - 1

/** RFC 9110 section 15.2, RFC 8297. */
describe('interim answers', () => {
  test('go to the client of a miss before the final answer is there, with their fields', async () => {
    const client = await read()
    client.send('/a')
    await until(() => client.text().includes('\r\n\r\n'))
    expect(client.statuses()).toEqual([103])
    expect(client.text()).toContain('</style.css>; rel=preload; as=style')
    expect(client.text()).toMatch(/x-hint: test/i)
    expect(client.text()).not.toMatch(/cache-status|^age:/im)
    release('/a')
    await until(() => client.text().endsWith('final'))
    expect(client.statuses()).toEqual([103, 200])
  })

  test('all of them, in order, 102 too', async () => {
    const client = await read()
    client.send('/processing/now')
    await until(() => client.text().endsWith('final'))
    client.send('/twice/now')
    await until(() => count(client.text(), 'final') === 2)
    expect(client.statuses()).toEqual([102, 103, 200, 103, 103, 200])
  })

  test('are not stored: a hit is the final answer alone, and has none of their fields', async () => {
    const client = await read()
    client.send('/now')
    await until(() => client.text().endsWith('final'))
    const first = client.text().length
    client.send('/now')
    await until(() => count(client.text(), 'final') === 2)
    const hit = client.text().slice(first)
    expect(proxy.requests().map(({ cache }) => cache)).toEqual(['miss', 'hit'])
    expect(hit).toMatch(/^HTTP\/1\.1 200/)
    expect(hit).not.toMatch(/HTTP\/1\.1 103|style\.css|x-hint/i)
  })

  test('pass by the cache like the answers that are not stored', async () => {
    const client = await read()
    client.send('/private/now')
    await until(() => client.text().endsWith('final'))
    client.send('/private/now')
    await until(() => count(client.text(), 'final') === 2)
    expect(client.statuses()).toEqual([103, 200, 103, 200])
  })

  test('an HTTP/1.0 client gets none', async () => {
    const client = await read()
    client.send('/now', '1.0')
    await until(() => client.text().endsWith('final'))
    expect(client.statuses()).toEqual([200])
    expect(asked).toEqual(['/now'])
  })

  test('of those who wait for one answer, the one who asked the origin has them; the others wait for the final one', async () => {
    const [leader, joiner, old] = [await read(), await read(), await read()]
    leader.send('/shared')
    await until(() => leader.statuses().length === 1)
    joiner.send('/shared')
    old.send('/shared', '1.0')
    await until(async () => /http_requests_in_flight 3/.test((await ask(`${proxy.url}/_proxy/metrics`)).text))
    release('/shared')
    await until(() => [leader, joiner, old].every((client) => client.text().endsWith('final')))
    expect([leader, joiner, old].map((client) => client.statuses())).toEqual([[103, 200], [200], [200]])
    expect(asked).toEqual(['/shared'])
  })

  test('that come for a refresh in the background are sent to nobody', async () => {
    const client = await read()
    client.send('/refreshed')
    await until(() => held.has('/refreshed'))
    release('/refreshed')
    await until(() => client.text().endsWith('final'))
    client.send('/refreshed')
    await until(() => held.has('/refreshed') && count(client.text(), 'final') === 2)
    release('/refreshed')
    client.send('/now')
    await until(() => count(client.text(), 'final') === 3)
    expect(client.statuses()).toEqual([103, 200, 200, 103, 200])
  })

  test('whoever leaves between them and the final answer harms nobody', async () => {
    const leaving = connect({ port: Number(new URL(proxy.url).port), host: '127.0.0.1' })
    leaving.write('GET /left HTTP/1.1\r\nHost: a.example\r\n\r\n')
    await once(leaving, 'data')
    leaving.destroy()
    await once(leaving, 'close')
    // A request later, the server knows.
    expect((await ask(`${proxy.url}/_proxy/health`)).status).toBe(200)
    release('/left')
    const client = await read()
    client.send('/left')
    await until(() => client.text().endsWith('final'))
    expect(client.statuses()).not.toContain(103)
    expect(asked).toEqual(['/left'])
  })

  test('before a failure: the client has them, and then what the failure is', async () => {
    const client = await read()
    client.send('/fails/now')
    await until(() => client.text().endsWith('final'))
    expect(client.statuses()).toEqual([103, 503])
  })
})
