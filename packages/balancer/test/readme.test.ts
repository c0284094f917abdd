import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { get, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Origin, startOrigin } from '@proxy/testing'
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest'

const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1] as string)

let folder: string
const origins: Origin[] = []
const printed: string[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'balancer-readme-'))
  vi.spyOn(console, 'log').mockImplementation((line: string) => {
    printed.push(line)
  })
})
afterEach(async () => {
  printed.length = 0
  await Promise.all(origins.splice(0).map((origin) => origin.close()))
})
afterAll(async () => {
  vi.restoreAllMocks()
  await rm(folder, { recursive: true })
})

/** Runs the example that has `mark` in it, with origins of this test in place of the README's. Returns what it exports. */
async function run(mark: string, listeners: RequestListener[] = [], exported = ''): Promise<Record<string, unknown>> {
  const example = examples.filter((code) => code.includes(mark))
  expect(example).toHaveLength(1)
  for (const listener of listeners) origins.push(await startOrigin(listener))
  let code = example[0] as string
  origins.forEach((origin, i) => {
    code = code.replaceAll(`http://10.0.0.${7 + i}:8080`, origin.url)
  })
  const file = join(folder, `${mark.replaceAll(/\W/g, '-')}.ts`)
  await writeFile(file, `${code.replace('.listen(3000)', ".listen(0, '127.0.0.1')")}\nexport { ${exported} }\n`)
  return (await import(file)) as Record<string, unknown>
}

it('has the examples that are run here and no others', () => {
  expect(examples).toHaveLength(3)
})

it('alone', async () => {
  const { balancer } = await run("'least-connections'", [(request, response) => response.end(`first ${request.url}`), (_, response) => response.end('second')], 'balancer')
  expect(printed).toEqual(['first /status'])
  expect((balancer as { targets: unknown[] }).targets[0]).toMatchObject({ active: 0, successes: 1, weight: 2 })
})

it('in node:http', async () => {
  const { server } = (await run('createServer', [(_, response) => response.end('first'), (_, response) => response.end('second')], 'server')) as { server: Server }
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
  await run('primariesFirst')
  expect(printed).toEqual(['primary-1 primary-2'])
})
