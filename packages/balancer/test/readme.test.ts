import { once } from 'node:events'
import { get, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Origin, readmeExamples, startOrigin } from '@proxy/testing'
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))

const origins: Origin[] = []
const printed: string[] = []

beforeAll(() => {
  vi.spyOn(console, 'log').mockImplementation((line: string) => {
    printed.push(line)
  })
})
afterEach(async () => {
  printed.length = 0
  await Promise.all(origins.splice(0).map((origin) => origin.close()))
})
afterAll(() => {
  vi.restoreAllMocks()
})

/** Origins of this test in place of the README's. */
async function originsHere(...listeners: RequestListener[]): Promise<Record<string, string>> {
  for (const listener of listeners) origins.push(await startOrigin(listener))
  return Object.fromEntries(origins.map(({ url }, i) => [`http://10.0.0.${7 + i}:8080`, url]))
}

it('has the examples that are run here and no others', () => {
  expect(examples.names).toEqual(['alone', 'node', 'strategy'])
})

it('alone', async () => {
  const here = await originsHere(
    (request, response) => response.end(`first ${request.url}`),
    (_, response) => response.end('second')
  )
  const { balancer } = await examples.run('alone', ['balancer'], here)
  expect(printed).toEqual(['first /status'])
  expect((balancer as { targets: unknown[] }).targets[0]).toMatchObject({ active: 0, successes: 1, weight: 2 })
})

it('in node:http', async () => {
  const here = await originsHere(
    (_, response) => response.end('first'),
    (_, response) => response.end('second')
  )
  const { server } = (await examples.run('node', ['server'], { ...here, '.listen(3000)': ".listen(0, '127.0.0.1')" })) as { server: Server }
  try {
    if (!server.listening) await once(server, 'listening')
    const ask = async () => {
      const [incoming] = (await once(get({ port: (server.address() as AddressInfo).port, agent: false }), 'response')) as [IncomingMessage]
      let text = `${incoming.statusCode} `
      for await (const chunk of incoming.setEncoding('utf8')) text += chunk
      return text
    }
    expect([await ask(), await ask()]).toEqual(['200 first', '200 second'])
    const name = origins[0]?.url.replace('http://', '')
    await origins[0]?.close()
    for (let i = 0; i < 6; i++) expect(await ask()).toBe('200 second')
    expect(printed).toEqual([`${name} is ejected: consecutive-failures`])
  } finally {
    server.closeAllConnections()
    server.close()
  }
})

it('a strategy of your own', async () => {
  await examples.run('strategy')
  expect(printed).toEqual(['primary-1 primary-2'])
})
