import { once } from 'node:events'
import { createServer, get, type IncomingMessage, type RequestListener, request, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { toNode } from '@proxy/pipeline/node'
import { createFakeClock, type Origin, startOrigin } from '@proxy/testing'
import { afterEach, describe, expect, it } from 'vitest'
import { type BalancerOptions, balance, createBalancer } from '../src/index.ts'
import { nodeUpstream } from './helpers.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function listen(listener: RequestListener, port = 0): Promise<Server> {
  const server = createServer(listener)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return server
}

const portOf = (server: Server) => (server.address() as AddressInfo).port

async function origin(listener: RequestListener): Promise<Origin> {
  const started = await startOrigin(listener)
  cleanups.push(() => started.close())
  return started
}

/** A balancer, and a proxy in front of its targets that listens on a real port. */
async function proxy(options: BalancerOptions) {
  const balancer = createBalancer(options)
  const server = await listen(toNode(balance({ balancer })(nodeUpstream())))
  const port = portOf(server)
  return {
    balancer,
    port,
    /** Status and text of a GET. */
    ask: async (): Promise<string> => {
      const [incoming] = (await once(get({ port, agent: false }), 'response')) as [IncomingMessage]
      let text = ''
      for await (const chunk of incoming.setEncoding('utf8')) text += chunk
      return `${incoming.statusCode} ${text}`
    }
  }
}

/** Resolves when `condition` holds: checked at every turn of the event loop, so it waits for what is under way and no longer. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

describe('two origins over real sockets', () => {
  it('share the requests; when one is killed no client sees an error, and it comes back after its return', async () => {
    const clock = createFakeClock()
    const a = await origin((_, outgoing) => outgoing.end('a'))
    const b = await origin((_, outgoing) => outgoing.end('b'))
    const { balancer, ask } = await proxy({
      clock,
      targets: [
        { origin: a.url, name: 'a' },
        { origin: b.url, name: 'b' }
      ]
    })
    const burst = async (count: number) => (await Promise.all(Array.from({ length: count }, () => ask()))).sort().join(' ')
    expect(await burst(6)).toBe('200 a 200 a 200 a 200 b 200 b 200 b')

    await a.close()
    for (let i = 0; i < 10; i++) expect(await burst(4)).toBe('200 b 200 b 200 b 200 b')
    expect(balancer.targets.map((state) => state.status)).toEqual(['ejected', 'available'])
    expect(balancer.targets.map((state) => state.active)).toEqual([0, 0])

    // The trial meets an origin that is still down: its request is answered by the other.
    clock.advance(10_000)
    expect(await burst(4)).toBe('200 b 200 b 200 b 200 b')
    expect(balancer.targets[0]?.status).toBe('ejected')

    await listen((_, outgoing) => outgoing.end('a again'), a.port)
    clock.advance(10_000)
    await burst(4)
    expect(balancer.targets[0]?.status).toBe('available')
    expect(await burst(4)).toBe('200 a again 200 a again 200 b 200 b')
  })

  it('answers 502 when both are down, and serves again as soon as one is back, without waiting for its time', async () => {
    const [a, b] = [await origin((_, outgoing) => outgoing.end()), await origin((_, outgoing) => outgoing.end())]
    const { balancer, ask } = await proxy({ clock: createFakeClock(), targets: [{ origin: a.url }, { origin: b.url }] })
    await Promise.all([a.close(), b.close()])
    for (let i = 0; i < 10; i++) expect(await ask()).toBe('502 Bad Gateway\n')
    expect(balancer.degraded).toBe(true)
    await listen((_, outgoing) => outgoing.end('b again'), b.port)
    for (let i = 0; i < 10; i++) expect(await ask()).toBe('200 b again')
    expect(balancer.degraded).toBe(false)
  })

  it('send a streamed upload once only', async () => {
    const dead = await origin((_, outgoing) => outgoing.end())
    await dead.close()
    const alive = await origin((_, outgoing) => outgoing.end('alive'))
    const { port } = await proxy({ targets: [{ origin: dead.url }, { origin: alive.url }] })
    const upload = request({ port, method: 'POST', agent: false })
    upload.end('payload')
    const [incoming] = (await once(upload, 'response')) as [IncomingMessage]
    incoming.resume()
    expect(incoming.statusCode).toBe(502)
    expect(alive.requests).toHaveLength(0)
  })
})

describe('the lease over real sockets', () => {
  it('lasts until the body has ended', async () => {
    let finish: (() => void) | undefined
    const slow = await origin((_, outgoing) => {
      outgoing.write('first ')
      finish = () => outgoing.end('last')
    })
    const { balancer, ask } = await proxy({ targets: [{ origin: slow.url }] })
    const [state] = balancer.targets
    const answer = ask()
    await until(() => finish !== undefined)
    expect(state?.active).toBe(1)
    finish?.()
    expect(await answer).toBe('200 first last')
    expect(state).toMatchObject({ active: 0, successes: 1 })
  })

  it('is a failure when the origin cuts its answer', async () => {
    const cutting = await origin((_, outgoing) => {
      outgoing.writeHead(200, { 'content-length': '100' })
      outgoing.write('first', () => outgoing.destroy())
    })
    const { balancer, ask } = await proxy({ targets: [{ origin: cutting.url }] })
    await expect(ask()).rejects.toThrow('aborted')
    expect(balancer.targets[0]).toMatchObject({ active: 0, failures: 1 })
  })

  it('is aborted when the client leaves in the middle, and the origin is let go', async () => {
    let originClosed = false
    const endless = await origin((_, outgoing) => {
      outgoing.on('close', () => (originClosed = true))
      outgoing.write('first')
    })
    const { balancer, port } = await proxy({ targets: [{ origin: endless.url }] })
    const socket = connect(port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n')
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    await until(() => text.includes('first'))
    expect(balancer.targets[0]?.active).toBe(1)
    socket.destroy()
    await until(() => originClosed && balancer.targets[0]?.active === 0)
    expect(balancer.targets[0]).toMatchObject({ active: 0, successes: 0, failures: 0, aborts: 1 })
  })
})
