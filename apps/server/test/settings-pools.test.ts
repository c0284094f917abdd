import { readFileSync } from 'node:fs'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Config } from '../src/index.ts'
import { ask, silentPort, startProxy, until } from './helpers.ts'

type PoolConfig = Config['pools'][string]
type Listener = Parameters<typeof startOrigin>[0]

const fixture = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url))

async function originOf(listener: Listener) {
  const origin = await startOrigin(listener)
  onTestFinished(() => origin.close())
  return origin
}

function proxyTo(pool: PoolConfig) {
  return startProxy({ pools: { web: pool }, routes: [{ pool: 'web', cache: false }] })
}

const names = (count: number) => Promise.all(Array.from({ length: count }, (_, index) => originOf((_, response) => response.end(String(index)))))

async function texts(url: string, count: number): Promise<string[]> {
  const found: string[] = []
  for (let i = 0; i < count; i++) found.push((await ask(`${url}/${i}`)).text)
  return found
}

describe('pools.NAME', () => {
  test('targets in turn, by weight', async () => {
    const [a, b] = await names(2)
    const even = await proxyTo({ targets: [a?.url as string, b?.url as string] })
    expect(await texts(even.url, 4)).toEqual(['0', '1', '0', '1'])
    const weighted = await proxyTo({ targets: [{ url: a?.url as string, weight: 3 }, b?.url as string] })
    expect((await texts(weighted.url, 8)).sort().join('')).toBe('00000011')
  })

  test('targets[].name is what logs say', async () => {
    const [a] = await names(1)
    const proxy = await proxyTo({ targets: [{ url: a?.url as string, name: 'first' }] })
    await ask(proxy.url)
    expect(proxy.requests()[0]?.upstream).toBe('first')
  })

  test('strategy: least-connections avoids the busy one', async () => {
    const held: (() => void)[] = []
    const slow = await originOf((_, response) => held.push(() => response.end('slow')))
    const [fast] = await names(1)
    const proxy = await proxyTo({ targets: [slow.url, fast?.url as string], strategy: 'least-connections' })
    const waiting = ask(proxy.url)
    await until(() => held.length === 1)
    expect(await texts(proxy.url, 4)).toEqual(['0', '0', '0', '0'])
    held[0]?.()
    expect((await waiting).text).toBe('slow')
  })

  test('strategy: random uses all of them, in no fixed turn', async () => {
    const [a, b] = await names(2)
    const proxy = await proxyTo({ targets: [a?.url as string, b?.url as string], strategy: 'random' })
    const found = (await texts(proxy.url, 64)).join('')
    expect(found).toMatch(/00|11/)
    expect(new Set(found)).toEqual(new Set(['0', '1']))
  })

  test('retries: another target where one cannot be reached', async () => {
    const [alive] = await names(1)
    const targets = ['http://127.0.0.1:1', alive?.url as string]
    const trying = await proxyTo({ targets, passiveHealth: false })
    expect(await texts(trying.url, 4)).toEqual(['0', '0', '0', '0'])
    expect(trying.requests().map(({ attempts }) => attempts)).toEqual([2, 1, 2, 1])
    const not = await proxyTo({ targets, retries: 0, passiveHealth: false })
    const statuses = [(await ask(not.url)).status, (await ask(not.url)).status]
    expect(new Set(statuses)).toEqual(new Set([200, 502]))
  })

  test('passiveHealth: a target that failed maxFails times is left out for failTimeout', async () => {
    const [alive] = await names(1)
    const targets = ['http://127.0.0.1:1', alive?.url as string]
    const proxy = await proxyTo({ targets, retries: 0, passiveHealth: { maxFails: 2, failTimeout: '1h' } })
    const statuses: number[] = []
    for (let i = 0; i < 10; i++) statuses.push((await ask(proxy.url)).status)
    expect(statuses.filter((status) => status === 502)).toHaveLength(2)
    const brief = await proxyTo({ targets, retries: 0, passiveHealth: { maxFails: 1, failTimeout: '1ms' } })
    let failures = 0
    await until(async () => {
      if ((await ask(brief.url)).status === 502) failures++
      return failures > 3
    })
  })

  test('timeouts.headers: 504 when no answer comes', async () => {
    const origin = await originOf(() => {})
    const proxy = await proxyTo({ targets: [origin.url], retries: 0, timeouts: { headers: '200ms' } })
    expect((await ask(proxy.url)).status).toBe(504)
  })

  test('timeouts.body: an answer that stops is cut', async () => {
    const origin = await originOf((_, response) => {
      response.writeHead(200, { 'content-length': '10' })
      response.write('half')
    })
    const proxy = await proxyTo({ targets: [origin.url], timeouts: { body: '200ms' } })
    await expect(ask(proxy.url)).rejects.toThrow()
    await until(() => proxy.requests().length === 1)
    expect(proxy.requests()[0]).toMatchObject({ outcome: 'failed' })
  })

  test('timeouts.connect: 504 when the connection is not made', async () => {
    const port = await silentPort()
    const proxy = await proxyTo({ targets: [`https://127.0.0.1:${port}`], retries: 0, timeouts: { connect: '300ms', headers: '1h' } })
    expect((await ask(proxy.url)).status).toBe(504)
  })

  test('connections: no more than so many at a time', async () => {
    const held: (() => void)[] = []
    const origin = await originOf((_, response) => held.push(() => response.end('done')))
    const proxy = await proxyTo({ targets: [origin.url], connections: 2 })
    const waiting = Promise.all(Array.from({ length: 4 }, (_, index) => ask(`${proxy.url}/${index}`)))
    await until(() => held.length === 2)
    await ask(`${proxy.url}/_proxy/health`)
    expect(held).toHaveLength(2)
    for (let done = 0; done < 4; done++) {
      await until(() => held.length > done)
      held[done]?.()
    }
    expect((await waiting).map(({ status }) => status)).toEqual([200, 200, 200, 200])
  })

  test('keepAlive: an unused connection is closed after it', async () => {
    let open = 0
    const origin = await originOf((request, response) => {
      open++
      request.socket.once('close', () => open--)
      response.end('x')
    })
    const proxy = await proxyTo({ targets: [origin.url], keepAlive: '100ms' })
    await ask(proxy.url)
    expect(open).toBe(1)
    await until(() => open === 0, 4000)
  })

  test('forwardClientHeaders, xForwarded and requestHeaders', async () => {
    const origin = await originOf((request, response) => response.end(JSON.stringify(request.headers)))
    const headers = { cookie: 'a=b', accept: 'image/*', 'x-secret': '1', 'x-keep': '1' }
    const seen = async (pool: Omit<PoolConfig, 'targets'>): Promise<Record<string, string>> => JSON.parse((await ask((await proxyTo({ targets: [origin.url], ...pool })).url, { headers })).text)
    const { host } = new URL(origin.url)
    expect(await seen({})).toMatchObject({ ...headers, host, 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'http', via: expect.any(String) })
    const changed = await seen({ requestHeaders: { set: { Referer: 'https://example.org/' }, remove: ['X-Secret'] }, xForwarded: false })
    expect(changed).toMatchObject({ referer: 'https://example.org/', 'x-keep': '1' })
    for (const name of ['x-secret', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host']) expect(changed).not.toHaveProperty(name)
    const none = await seen({ forwardClientHeaders: false })
    for (const name of Object.keys(headers)) expect(none).not.toHaveProperty(name)
  })

  test('tls: verified by default, against ca and serverName', async () => {
    const server = createHttpsServer({ cert: readFileSync(fixture('cert.pem')), key: readFileSync(fixture('key.pem')) }, (_, response) => response.end('secure'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      server.close()
      server.closeAllConnections()
    })
    const target = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
    const statusWith = async (tls: PoolConfig['tls']): Promise<number> => (await ask((await proxyTo({ targets: [target], retries: 0, ...(tls !== undefined && { tls }) })).url)).status
    expect(await statusWith(undefined)).toBe(502)
    expect(await statusWith({ verify: false })).toBe(200)
    expect(await statusWith({ ca: fixture('cert.pem') })).toBe(200)
    expect(await statusWith({ ca: fixture('cert.pem'), serverName: 'proxy.test' })).toBe(200)
    expect(await statusWith({ ca: fixture('cert.pem'), serverName: 'other.test' })).toBe(502)
    await expect(proxyTo({ targets: [target], tls: { ca: '/no/such/file.pem' } })).rejects.toThrow('pools.web.tls.ca: there is no file /no/such/file.pem')
  })
})
