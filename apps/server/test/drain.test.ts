import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Agent, type RequestListener, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { ListenerSettings } from '../src/config/schema.ts'
import { resolveConfig } from '../src/index.ts'
import { createListener } from '../src/listener.ts'
import { refuseTunnels } from '../src/tunnels.ts'
import { ask, startProxy, until } from './helpers.ts'

const FIVE_MB = 5 * 1024 * 1024

/** Begins a download and reads nothing beyond its first bytes; `rest()` reads it to its end. */
async function slowDownload(port: number, path = '/'): Promise<{ socket: Socket; rest: () => Promise<Buffer> }> {
  const socket = connect({ port, host: '127.0.0.1' })
  onTestFinished(() => {
    socket.destroy()
  })
  socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`)
  const chunks: Buffer[] = []
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.once('data', (chunk: Buffer) => {
      chunks.push(chunk)
      socket.pause()
      resolve()
    })
  })
  const rest = (): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      socket.on('data', (chunk: Buffer) => chunks.push(chunk))
      socket.on('error', reject)
      socket.on('close', () => resolve(Buffer.concat(chunks)))
      socket.resume()
    })
  return { socket, rest }
}

function bodyOf(message: Buffer): Buffer {
  return message.subarray(message.indexOf('\r\n\r\n') + 4)
}

describe('downloads under way end whole', () => {
  const content = randomBytes(FIVE_MB)

  async function proxied(cacheControl: string, body = content) {
    const origin = await startOrigin((_, response) => response.writeHead(200, { 'cache-control': cacheControl, 'content-length': String(body.length) }).end(body))
    onTestFinished(() => origin.close())
    const proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
    return { proxy, port: Number(new URL(proxy.url).port) }
  }

  test('passed through', async () => {
    const { proxy, port } = await proxied('no-store')
    const download = await slowDownload(port)
    const closed = proxy.server.close()
    expect(bodyOf(await download.rest()).equals(content)).toBe(true)
    expect(await closed).toBe(0)
  })

  // node:http counts an answer as done once it was handed over, and its close() destroys the connection: of 40 MB, 4 MB arrived.
  test('handed over at once, most of it still in this process', async () => {
    const large = randomBytes(40 * 1024 * 1024)
    const settings = resolveConfig({ listeners: [{ port: 0 }], pools: { web: { targets: ['http://127.0.0.1:1'] } } }).listeners[0] as ListenerSettings
    const onRequest: RequestListener = (_, outgoing) => {
      outgoing.writeHead(200, ['content-length', String(large.length)]).end(large)
    }
    const listener = await createListener(
      settings,
      0,
      onRequest,
      refuseTunnels(() => {}, undefined)
    )
    await listener.listen()
    const download = await slowDownload(listener.address?.port as number)
    const closed = listener.close(30_000)
    expect(bodyOf(await download.rest()).equals(large)).toBe(true)
    expect(await closed).toBe(0)
  })

  test('from the cache', async () => {
    const { proxy, port } = await proxied('max-age=60')
    expect((await ask(proxy.url)).body.equals(content)).toBe(true)
    await until(async () => (await ask(proxy.url)).headers['cache-status']?.includes('hit') ?? false)
    const download = await slowDownload(port)
    const closed = proxy.server.close()
    const message = await download.rest()
    expect(message.toString('latin1', 0, 1000)).toContain('proxy; hit')
    expect(bodyOf(message).equals(content)).toBe(true)
    expect(await closed).toBe(0)
  })

  test('beyond the grace time they are cut, and told', async () => {
    // More than the buffers of two sockets hold.
    const { proxy, port } = await proxied('no-store', Buffer.alloc(40 * 1024 * 1024))
    const download = await slowDownload(port)
    expect(await proxy.server.close(100)).toBe(1)
    const received = await download.rest().catch(() => Buffer.alloc(0))
    expect(received.length).toBeLessThan(40 * 1024 * 1024)
  })
})

test('an answer that is given while draining says Connection: close, and nobody new is let in', async () => {
  let answer: (() => void) | undefined
  const origin = await startOrigin((_, response) => {
    answer = () => response.end('late')
  })
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
  const agent = new Agent({ keepAlive: true })
  onTestFinished(() => agent.destroy())
  const waiting = ask(proxy.url, { agent })
  await until(() => answer !== undefined)
  const closed = proxy.server.close()
  expect(proxy.server.state).toBe('draining')
  await expect(ask(proxy.url)).rejects.toThrow('ECONNREFUSED')
  answer?.()
  const given = await waiting
  expect(given.text).toBe('late')
  expect(given.headers.connection).toBe('close')
  expect(await closed).toBe(0)
})

test('idle connections do not hold it up', async () => {
  const origin = await startOrigin((_, response) => response.end('x'))
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
  const agent = new Agent({ keepAlive: true })
  onTestFinished(() => agent.destroy())
  expect((await ask(proxy.url, { agent })).headers.connection).toBe('keep-alive')
  const silent = connect({ port: Number(new URL(proxy.url).port), host: '127.0.0.1' })
  await once(silent, 'connect')
  const startedMs = performance.now()
  expect(await proxy.server.close(30_000)).toBe(0)
  expect(performance.now() - startedMs).toBeLessThan(10_000)
})

test('an upload under way is answered', async () => {
  const origin = await startOrigin((incoming, response) => {
    incoming.on('end', () => response.end('got it'))
    incoming.resume()
  })
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
  const outgoing = request(proxy.url, { method: 'POST', headers: { 'content-length': '6' } })
  outgoing.write('abc')
  await until(() => origin.requests.length === 1)
  const closed = proxy.server.close()
  outgoing.end('def')
  const [incoming] = (await once(outgoing, 'response')) as [import('node:http').IncomingMessage]
  incoming.resume()
  expect(incoming.statusCode).toBe(200)
  expect(await closed).toBe(0)
  expect(origin.requests[0]?.body.toString()).toBe('abcdef')
})

test('closing twice, and closing what never listened', async () => {
  const { createServer } = await import('../src/index.ts')
  const server = await createServer({ pools: { web: { targets: ['http://127.0.0.1:1'] } } }, { log: { write() {} } })
  expect(await server.close()).toBe(0)
  const proxy = await startProxy({ pools: { web: { targets: ['http://127.0.0.1:1'] } } })
  expect(await Promise.all([proxy.server.close(), proxy.server.close(0)])).toEqual([0, 0])
})
