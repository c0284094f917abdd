import { describe, expect, test } from 'vitest'
import { Context, createContextKey, createHeaders, createRequest, derive, Exchange, type ProxyRequest, withContext } from '../src/index.ts'

const key = createContextKey<string>('k')

describe('a request made by the program', () => {
  test('has defaults', () => {
    const request = createRequest()
    expect(request).toMatchObject({
      method: 'GET',
      target: '/',
      authority: 'localhost',
      scheme: 'http',
      httpVersion: '1.1',
      body: null,
      remoteAddress: '127.0.0.1',
      peerAddress: '127.0.0.1',
      context: Context.empty
    })
    const [first, second] = [request.signal, request.signal]
    expect([first.aborted, first === second]).toEqual([false, true])
    expect(request.onInterim).toBeUndefined()
  })

  test('has what it is given', () => {
    const controller = new AbortController()
    const exchange = new Exchange()
    const request = createRequest({ method: 'PUT', body: Buffer.from('x'), signal: controller.signal, exchange, remoteAddress: '::1', context: Context.empty.with(key, 'v') })
    expect([request.method, request.signal, request.exchange, request.remoteAddress, request.context.get(key)]).toEqual(['PUT', controller.signal, exchange, '::1', 'v'])
  })
})

describe('a derived request', () => {
  const headers = createHeaders()
  headers.a = '1'
  const base = createRequest({ method: 'POST', target: '/a', authority: 'h', headers, body: Buffer.from('x') })

  test('differs in what was changed, and in nothing else', () => {
    const request = derive(base, { target: '/b' })
    expect([request.target, request.method, request.authority, request.headers, request.body, request.exchange, request.signal, base.target]).toEqual([
      '/b',
      'POST',
      'h',
      headers,
      base.body,
      base.exchange,
      base.signal,
      '/a'
    ])
  })

  test('can lose its body', () => {
    expect(derive(base, { method: 'GET', body: null }).body).toBeNull()
    expect(derive(derive(base, { body: null }), { method: 'GET' }).body).toBeNull()
  })

  test('merges with what it was derived from, the last one counts', () => {
    const changed = createHeaders()
    const request = derive(derive(derive(base, { target: '/b', method: 'PUT' }), { headers: changed }), { method: 'DELETE', scheme: 'https' })
    expect([request.target, request.method, request.headers, request.scheme, request.authority]).toEqual(['/b', 'DELETE', changed, 'https', 'h'])
  })

  test('carries its context on, whichever way it was derived', () => {
    const context = Context.empty.with(key, 'v')
    const other = Context.empty.with(key, 'w')
    expect(derive(withContext(base, context), { target: '/b' }).context).toBe(context)
    expect(withContext(derive(base, { target: '/b' }), context).target).toBe('/b')
    expect(withContext(derive(base, { context: other }), context).context).toBe(context)
    expect(derive(withContext(base, context), { context: other }).context).toBe(other)
    expect(base.context.get(key)).toBeUndefined()
  })

  test('leaves lazy what is lazy', () => {
    let made = 0
    const lazy: ProxyRequest = {
      ...createRequest(),
      get signal() {
        made++
        return new AbortController().signal
      }
    }
    const request = derive(withContext(lazy, Context.empty), { target: '/b' })
    expect(made).toBe(0)
    void request.signal
    expect(made).toBe(1)
  })

  test('passes interim answers on where the host can, with its own this', () => {
    const interims: number[] = []
    const host = {
      ...createRequest(),
      interims,
      onInterim(status: number) {
        this.interims.push(status)
      }
    }
    derive(host, { target: '/b' }).onInterim?.(103, createHeaders())
    expect([interims, derive(base, {}).onInterim]).toEqual([[103], undefined])
  })
})
