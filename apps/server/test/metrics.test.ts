import { startOrigin } from '@proxy/testing'
import { expect, onTestFinished, test } from 'vitest'
import { Durations } from '../src/durations.ts'
import { ask, startProxy, until } from './helpers.ts'

/** Samples of the text format: `name{labels}` -> value. */
async function samples(url: string): Promise<Map<string, number>> {
  const { text, headers } = await ask(`${url}/_proxy/metrics`)
  expect(headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/)
  const found = new Map<string, number>()
  for (const line of text.split('\n')) {
    const match = /^(\w+(?:\{[^}]*\})?) (\S+)$/.exec(line)
    if (match !== null) found.set(match[1] as string, Number(match[2]))
  }
  return found
}

/** Samples of a histogram of 0.4 ms, exactly 1 ms, 20 ms and a minute, as Prometheus wants them: cumulative buckets, of which the last counts all. */
test('durations fall into the bucket whose bound they do not exceed', () => {
  const durations = new Durations('d', 'what')
  for (const seconds of [0.0004, 0.001, 0.02, 60]) durations.observe('GET', 200, seconds)
  const lines = durations.render().trim().split('\n')
  expect(lines.slice(0, 2)).toEqual(['# HELP d what', '# TYPE d histogram'])
  const counts = Object.fromEntries(lines.filter((line) => line.includes('_bucket')).map((line) => [/le="([^"]+)"/.exec(line)?.[1], Number(line.split(' ')[1])]))
  expect(counts).toMatchObject({ 0.0005: 1, 0.001: 2, 0.0025: 2, 0.01: 2, 0.025: 3, 30: 3, '+Inf': 4 })
  expect(lines.slice(-2)).toEqual(['d_sum{method="GET",status="200"} 60.0214', 'd_count{method="GET",status="200"} 4'])
})

test('requests, durations, cache and upstream results', async () => {
  const origin = await startOrigin((request, response) => {
    if (request.url === '/missing') response.writeHead(404).end()
    else response.writeHead(200, { 'cache-control': 'max-age=60' }).end('body')
  })
  onTestFinished(() => origin.close())
  const proxy = await startProxy({
    pools: { web: { targets: [{ url: origin.url, name: 'one' }] }, dead: { targets: [{ url: 'http://127.0.0.1:1', name: 'none' }] } },
    routes: [{ pool: 'web' }, { pool: 'dead', match: { path: '/dead' } }]
  })
  await ask(`${proxy.url}/a`)
  await ask(`${proxy.url}/a`)
  await ask(`${proxy.url}/a`)
  await ask(`${proxy.url}/missing`)
  await ask(`${proxy.url}/dead`)
  await ask(`${proxy.url}/a`, { method: 'PROPFIND' })

  const found = await samples(proxy.url)
  expect(found.get('http_requests_total{method="GET",status="200"}')).toBe(3)
  expect(found.get('http_requests_total{method="GET",status="404"}')).toBe(1)
  expect(found.get('http_requests_total{method="GET",status="502"}')).toBe(1)
  expect(found.get('http_requests_total{method="other",status="200"}')).toBe(1)
  expect(found.get('http_requests_duration_seconds_count{method="GET",status="200"}')).toBe(3)
  expect(found.get('http_requests_duration_seconds_bucket{le="+Inf",method="GET",status="200"}')).toBe(3)
  const sum = found.get('http_requests_duration_seconds_sum{method="GET",status="200"}') as number
  expect(sum).toBeGreaterThan(0)
  expect(sum).toBeLessThan(30)
  expect(found.get('proxy_cache_results_total{result="hit"}')).toBe(2)
  expect(found.get('proxy_cache_results_total{result="miss"}')).toBeGreaterThanOrEqual(2)
  expect(found.get('proxy_upstream_results_total{upstream="one",result="2xx"}')).toBe(2)
  expect(found.get('proxy_upstream_results_total{upstream="one",result="4xx"}')).toBe(1)
  expect([...found.keys()].filter((key) => key.startsWith('proxy_upstream_results_total{upstream="none",result="UPSTREAM_'))).toHaveLength(1)
  expect(found.get('http_requests_in_flight')).toBe(0)
  // Its own pages are not counted.
  expect(await samples(proxy.url)).toEqual(found)
})

test('what is under way, and answers that were cut', async () => {
  const held: (() => void)[] = []
  const origin = await startOrigin((_, response) => {
    response.writeHead(200, { 'content-length': '10' })
    response.write('half')
    held.push(() => response.destroy())
  })
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
  const broken = ask(proxy.url).catch((error: unknown) => error)
  await until(() => held.length === 1)
  expect((await samples(proxy.url)).get('http_requests_in_flight')).toBe(1)
  held[0]?.()
  expect(await broken).toBeInstanceOf(Error)
  await until(async () => (await samples(proxy.url)).get('http_requests_in_flight') === 0)
  expect((await samples(proxy.url)).get('http_responses_incomplete_total{outcome="failed"}')).toBe(1)
})

test('messages that never became a request are counted too', async () => {
  const proxy = await startProxy({ pools: { web: { targets: ['http://127.0.0.1:1'] } } })
  expect((await ask(proxy.url, { headers: { host: 'a b' } })).status).toBe(400)
  const found = await samples(proxy.url)
  expect(found.get('http_requests_total{method="other",status="400"}')).toBe(1)
  expect(found.get('http_requests_in_flight')).toBe(0)
})
