import { describe, expect, test } from 'vitest'
import { checkProxyName, clientAborted, errorResponse, isProxyError, ProxyError, type ProxyErrorOptions, toProxyError } from '../src/errors.ts'

const failure = (options: Partial<ProxyErrorOptions> = {}) => new ProxyError('secret at 10.0.0.1', { code: 'X', status: 502, source: 'upstream', ...options })

describe('ProxyError', () => {
  test('says who is at fault and whether to try again', () => {
    const cause = new Error('inner')
    const error = failure({ retryable: true, cause })
    expect(error).toMatchObject({ name: 'ProxyError', message: 'secret at 10.0.0.1', code: 'X', status: 502, source: 'upstream', retryable: true, cause })
    expect([failure().retryable, failure().cause, 'cause' in failure()]).toEqual([false, undefined, false])
    expect(error).toBeInstanceOf(Error)
  })

  test('is known across two copies of this package', async () => {
    // The query makes it a module of its own, as a second installed copy is.
    const copy = (await import(/* @vite-ignore */ `${'../src/errors.ts'}?copy`)) as typeof import('../src/errors.ts')
    const error = new copy.ProxyError('x', { code: 'Y', status: 418, source: 'client' })
    expect(error instanceof ProxyError).toBe(false)
    expect([isProxyError(error), toProxyError(error) === (error as unknown)]).toEqual([true, true])
  })

  test('is not what only looks like one', () => {
    for (const value of [undefined, null, 'x', { code: 'X', status: 502 }, new Error('x')]) expect(isProxyError(value)).toBe(false)
  })

  test('is made of whatever was thrown', () => {
    for (const value of [new Error('e'), 'text', 7, undefined, null, Symbol('s'), Object.create(null), { toString: null }])
      expect(toProxyError(value)).toMatchObject({ code: 'PROXY_INTERNAL', status: 500, source: 'proxy', retryable: false })
    expect(toProxyError(new Error('e')).cause).toBeInstanceOf(Error)
    expect(clientAborted()).toMatchObject({ code: 'CLIENT_ABORTED', status: 499, source: 'client' })
  })
})

describe('the answer to a failure', () => {
  const text = (error: unknown, options?: { proxyName?: string }) => {
    const { status, headers, body } = errorResponse(error, options)
    return { status, headers: { ...headers }, body: Buffer.from(body as Uint8Array).toString() }
  }

  test('has the status, its phrase, and nothing of the message', () => {
    expect(text(failure({ proxyStatus: 'connection_refused', retryAfter: 0.2 }), { proxyName: 'edge' })).toEqual({
      status: 502,
      headers: {
        'content-type': 'text/plain; charset=utf-8',
        'content-length': '12',
        'cache-control': 'no-store',
        'proxy-status': 'edge; error=connection_refused',
        'retry-after': '1'
      },
      body: 'Bad Gateway\n'
    })
    expect(JSON.stringify(text(new Error('secret at 10.0.0.1')))).not.toMatch(/secret|10\.0/)
  })

  test('has the phrase of its status, also a rare one', () => {
    for (const [status, phrase] of [
      [404, 'Not Found'],
      [406, 'Not Acceptable'],
      [413, 'Content Too Large'],
      [431, 'Request Header Fields Too Large'],
      [451, 'Unavailable For Legal Reasons'],
      [490, 'Bad Request'],
      [504, 'Gateway Timeout'],
      [590, 'Internal Server Error']
    ] as const)
      expect(text(failure({ status })).body).toBe(`${phrase}\n`)
  })

  test('is 500 where the status is none of a failure; 499 is for logs', () => {
    for (const status of [0, 200, 399, 600, 404.5, Number.NaN, 499]) expect([status, text(failure({ status })).status]).toEqual([status, 500])
  })

  test('has no Retry-After that is no number', () => {
    for (const retryAfter of [Number.NaN, Number.POSITIVE_INFINITY]) expect(text(failure({ retryAfter })).headers).not.toHaveProperty('retry-after')
  })

  test('names the proxy by a token', () => {
    for (const name of [undefined, 'edge', '*x/1:2', 'a.example']) expect(() => checkProxyName(name)).not.toThrow()
    for (const name of ['', '1a', 'a b', 'a\r\nb', 'ä', 'a;b']) expect(() => checkProxyName(name)).toThrow(TypeError)
  })
})
