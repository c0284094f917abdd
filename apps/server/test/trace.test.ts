import { startOrigin } from '@proxy/testing'
import { expect, onTestFinished, test } from 'vitest'
import { ask, startProxy } from './helpers.ts'

async function proxied(config: Parameters<typeof startProxy>[0] | Record<string, never> = {}) {
  const origin = await startOrigin((_, response) => response.end('ok'))
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ ...config, pools: { web: { targets: [origin.url] } } })
  const idAtOrigin = () => {
    const { rawHeaders } = origin.requests.at(-1) as (typeof origin.requests)[number]
    return rawHeaders.flatMap((name, index) => (index % 2 === 0 && name.toLowerCase() === 'x-request-id' ? [rawHeaders[index + 1]] : []))
  }
  return { proxy, idAtOrigin }
}

test('each request has an id of its own: the client, the origin and the log see the same', async () => {
  const { proxy, idAtOrigin } = await proxied()
  const first = await ask(`${proxy.url}/a`)
  expect(first.headers['x-request-id']).toMatch(/^[0-9a-f]{16}-0$/)
  expect(idAtOrigin()).toEqual([first.headers['x-request-id']])
  const second = await ask(`${proxy.url}/b`)
  expect(second.headers['x-request-id']).toBe((first.headers['x-request-id'] as string).replace(/0$/, '1'))
  expect(proxy.requests().map(({ requestId }) => requestId)).toEqual([first.headers['x-request-id'], second.headers['x-request-id']])
})

test('an id that a client brings is replaced, one of a trusted proxy is kept', async () => {
  const untrusted = await proxied()
  const replaced = await ask(untrusted.proxy.url, { headers: { 'x-request-id': 'mine' } })
  expect(replaced.headers['x-request-id']).toMatch(/^[0-9a-f]{16}-0$/)
  expect(untrusted.idAtOrigin()).toEqual([replaced.headers['x-request-id']])

  const trusted = await proxied({ trustedProxies: ['127.0.0.1'], pools: {} })
  expect((await ask(trusted.proxy.url, { headers: { 'x-request-id': 'edge-7' } })).headers['x-request-id']).toBe('edge-7')
  expect(trusted.idAtOrigin()).toEqual(['edge-7'])
  expect((await ask(trusted.proxy.url, { headers: { 'x-request-id': 'a b' } })).headers['x-request-id']).toMatch(/^[0-9a-f]{16}-/)
})

test('failures carry the id too, and no word of what went wrong inside', async () => {
  const proxy = await startProxy({ pools: { web: { targets: ['http://127.0.0.1:1'] } } })
  const answer = await ask(proxy.url)
  expect(answer.status).toBe(502)
  expect(answer.text).toBe('Bad Gateway\n')
  expect(answer.headers['x-request-id']).toBe(proxy.requests()[0]?.requestId)
  expect(proxy.requests()[0]).toMatchObject({ status: 502, upstream: '127.0.0.1:1', error: { code: expect.stringContaining('UPSTREAM_') } })
})
