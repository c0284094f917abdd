import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { createHeaders, createRequest, derive, isAborted, neverAborted, offAbort, onAbort, type ProxyRequest } from '../src/index.ts'
import { toNode } from '../src/node.ts'

class Told {
  times = 0
  readonly first: Promise<void>
  private resolve!: () => void
  constructor() {
    this.first = new Promise((resolve) => {
      this.resolve = resolve
    })
  }
  handleEvent(): void {
    this.times++
    this.resolve()
  }
}

/** A server whose handler never answers, and a client for it. */
async function pending(): Promise<{ request: Promise<ProxyRequest>; leave: () => void }> {
  let given!: (request: ProxyRequest) => void
  const request = new Promise<ProxyRequest>((resolve) => {
    given = resolve
  })
  const server = http.createServer(
    toNode((one) => {
      given(one)
      return new Promise(() => {})
    })
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const client = http.get({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' })
  client.on('error', () => {})
  return { request, leave: () => client.destroy() }
}

test('a client that leaves is told to listeners of the request and of what was derived from it, once, and no signal is made for that', async () => {
  const { request, leave } = await pending()
  const node = await request
  const derived = derive(node, { headers: createHeaders() })
  const [a, b, removed] = [new Told(), new Told(), new Told()]
  onAbort(node, a)
  onAbort(derived, b)
  onAbort(derived, removed)
  offAbort(node, removed)
  expect(isAborted(derived)).toBe(false)
  leave()
  await Promise.all([a.first, b.first])
  expect([a.times, b.times, removed.times]).toEqual([1, 1, 0])
  expect(isAborted(node)).toBe(true)
  expect(isAborted(derived)).toBe(true)
  expect((node as unknown as { controller: unknown }).controller).toBeUndefined()
  // Made afterwards, it says the same.
  expect(node.signal.aborted).toBe(true)
})

test('the signal and the listeners of one request both hear of it', async () => {
  const { request, leave } = await pending()
  const node = await request
  const told = new Told()
  onAbort(node, told)
  const { signal } = node
  const heard = new Promise((resolve) => signal.addEventListener('abort', resolve))
  leave()
  await Promise.all([told.first, heard])
})

test('a derived request with a signal of its own listens to that', () => {
  const controller = new AbortController()
  const request = derive(createRequest(), { signal: controller.signal })
  const told = new Told()
  onAbort(request, told)
  controller.abort()
  expect(told.times).toBe(1)
  expect(isAborted(request)).toBe(true)
})

test('nobody listens to the signal that is never aborted', () => {
  const told = new Told()
  const add = neverAborted.addEventListener
  neverAborted.addEventListener = () => {
    throw new Error('listened')
  }
  onAbort(createRequest(), told)
  neverAborted.addEventListener = add
  offAbort(createRequest(), told)
  expect(told.times).toBe(0)
})
