import { startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Config } from '../src/index.ts'
import { type Answer, ask, startProxy } from './helpers.ts'

type Fields = Record<string, string | string[]>

const inAnHour = new Date(Date.now() + 3_600_000).toUTCString()
const anHourAgo = new Date(Date.now() - 3_600_000).toUTCString()

/** What became of two requests for an answer with these fields: what the cache did each time, and the first answer. */
async function twice(fields: Fields, cache?: Config['cache']): Promise<{ outcome: string; ttl: number; first: Answer }> {
  const origin = await startOrigin((_, response) => response.writeHead(200, fields).end('text'))
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, ...(cache && { cache }) })
  const first = await ask(proxy.url)
  await ask(proxy.url)
  const outcome = proxy.requests().map(({ cache: did }) => did)
  return { outcome: outcome.join(' '), ttl: Number(/ttl=(-?\d+)/.exec(String(first.headers['cache-status']))?.[1]), first }
}

/** RFC 9213. */
describe('CDN-Cache-Control', () => {
  test.each<[string, Fields]>([
    ['alone', { 'cdn-cache-control': 'max-age=60' }],
    ['as long as a cache remembers', { 'cdn-cache-control': 'max-age=2147483648' }],
    ['longer than that', { 'cdn-cache-control': 'max-age=99999999999' }],
    ['beside directives that nobody knows', { 'cdn-cache-control': 'surprise, max-age=60;with=parameters, other=(a b)' }],
    ['in several lines', { 'cdn-cache-control': ['surprise', 'max-age=60'] }],
    ['said twice: the last one counts', { 'cdn-cache-control': 'max-age=0, max-age=60' }],
    ['s-maxage before max-age', { 'cdn-cache-control': 'max-age=0, s-maxage=60' }],
    ['against no-store', { 'cdn-cache-control': 'max-age=60', 'cache-control': 'no-store' }],
    ['against private', { 'cdn-cache-control': 'max-age=60', 'cache-control': 'private, max-age=0' }],
    ['against a shorter max-age and s-maxage', { 'cdn-cache-control': 'max-age=60', 'cache-control': 'max-age=0, s-maxage=0' }],
    ['against an Expires that has passed', { 'cdn-cache-control': 'max-age=60', expires: anHourAgo }],
    ['against an Expires that is none', { 'cdn-cache-control': 'max-age=60', expires: '0' }],
    ['against Pragma', { 'cdn-cache-control': 'max-age=60', pragma: 'no-cache' }]
  ])('stores and reuses: %s', async (_, fields) => {
    expect((await twice(fields)).outcome).toBe('miss hit')
  })

  test.each<[string, Fields]>([
    ['max-age=0', { 'cdn-cache-control': 'max-age=0' }],
    ['an Age beyond it', { 'cdn-cache-control': 'max-age=60', age: '61' }],
    ['max-age=0 against a longer one', { 'cdn-cache-control': 'max-age=0', 'cache-control': 'max-age=60, s-maxage=60' }],
    ['max-age=0 against Expires', { 'cdn-cache-control': 'max-age=0', expires: inAnHour }],
    ['private', { 'cdn-cache-control': 'private', 'cache-control': 'max-age=60' }],
    ['no-store', { 'cdn-cache-control': 'no-store', 'cache-control': 'max-age=60' }],
    ['no-cache', { 'cdn-cache-control': 'no-cache', 'cache-control': 'max-age=60' }],
    // Cache-Control and Expires have no say, so there is no lifetime.
    ['nothing of a lifetime', { 'cdn-cache-control': 'public', 'cache-control': 'max-age=60', expires: inAnHour }],
    ['a text for a number, which is no directive', { 'cdn-cache-control': 'max-age="60"', 'cache-control': 'max-age=60' }],
    ['a fraction', { 'cdn-cache-control': 'max-age=60.5', 'cache-control': 'max-age=60' }],
    ['a number below 0', { 'cdn-cache-control': 'max-age=-1', 'cache-control': 'max-age=60' }]
  ])('does not reuse: %s', async (_, fields) => {
    expect((await twice(fields)).outcome).toBe('miss miss')
  })

  // Section 2.1: what is no structured dictionary, or is empty, is as if it were not there.
  test.each([
    ['empty', ''],
    ['something that is none', 'max-age=600, &&&&'],
    ['a capital letter', 'Max-Age=600'],
    ['a space before the sign', 'max-age =600'],
    ['a space after the sign', 'max-age= 600'],
    ['a comma too many', 'max-age=600,'],
    ['a text that does not end', 'max-age=600, a="b'],
    ['bytes beyond ASCII', 'max-age=600, a="\u00e9"']
  ])('does not count where it cannot be read, and Cache-Control does: %s', async (_, value) => {
    const { outcome, ttl } = await twice({ 'cdn-cache-control': value, 'cache-control': 'max-age=60' })
    expect(outcome).toBe('miss hit')
    expect(ttl).toBe(60)
    expect((await twice({ 'cdn-cache-control': value, 'cache-control': 'no-store' })).outcome).toBe('miss miss')
  })

  test('it goes on to the client, with Cache-Control as it came', async () => {
    const { first } = await twice({ 'cdn-cache-control': 'max-age=60', 'cache-control': 'no-store' })
    expect(first.headers).toMatchObject({ 'cdn-cache-control': 'max-age=60', 'cache-control': 'no-store' })
  })

  test('a field of our own comes first where it is configured, and one that cannot be read leaves the word to the next', async () => {
    const targetedFields = ['Our-Cache-Control', 'CDN-Cache-Control']
    const fields = { 'cdn-cache-control': 'max-age=30', 'cache-control': 'max-age=60' }
    expect((await twice({ ...fields, 'our-cache-control': 'max-age=10' }, { targetedFields })).ttl).toBe(10)
    expect((await twice({ ...fields, 'our-cache-control': 'max-age=' }, { targetedFields })).ttl).toBe(30)
    expect((await twice({ ...fields, 'our-cache-control': 'no-store' }, { targetedFields })).outcome).toBe('miss miss')
    expect((await twice({ ...fields, 'our-cache-control': 'max-age=10' }, { targetedFields: [] })).ttl).toBe(60)
  })

  test('it allows to serve stale, or forbids it', async () => {
    const stale = { age: '100' }
    expect((await twice({ ...stale, 'cdn-cache-control': 'max-age=60, stale-while-revalidate=600', 'cache-control': 'must-revalidate' })).outcome).toBe('miss stale')
    expect((await twice({ ...stale, 'cdn-cache-control': 'max-age=60, must-revalidate', 'cache-control': 'max-age=60, stale-while-revalidate=600', etag: '"a"' })).outcome).not.toContain('stale')
  })
})
