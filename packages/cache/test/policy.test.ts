import { describe, expect, test } from 'vitest'
import { parseCacheControl } from '../src/cache-control.ts'
import { sampleMeta } from '../src/conformance.ts'
import { currentAgeMs, initialAgeMs, isFresh, lifetimeMs } from '../src/freshness.ts'
import { type StoragePolicy, storability } from '../src/storability.ts'
import type { StatusPattern, TtlRule } from '../src/ttl-rules.ts'
import { headers, standardPolicy } from './support.ts'

const now = Date.UTC(2024, 0, 1)
const date = (offsetMs: number): string => new Date(now + offsetMs).toUTCString()

interface Case {
  method?: string
  authorized?: boolean
  requestNoStore?: boolean
  status?: number
  initialAgeMs?: number
  rules?: TtlRule[]
}

const policy = (rules: readonly TtlRule[] = []): StoragePolicy => ({ ...standardPolicy, rules })

function decide(fields: Record<string, string | string[]>, given: Case = {}): string | number {
  const { rules = [], ...rest } = given
  const decision = storability({ method: 'GET', authorized: false, requestNoStore: false, status: 200, headers: headers(fields), responseTime: now, initialAgeMs: 0, ...rest }, policy(rules))
  return decision.store ? decision.lifetimeMs : decision.reason
}

describe('storability', () => {
  const hour: TtlRule[] = [{ ttlMs: 3_600_000 }]
  const cases: [string, Record<string, string | string[]>, Case, string | number][] = [
    ['explicit freshness', { 'cache-control': 'max-age=60' }, {}, 60_000],
    ['POST', { 'cache-control': 'max-age=60' }, { method: 'POST' }, 'method'],
    ['HEAD', { 'cache-control': 'max-age=60' }, { method: 'HEAD' }, 'method'],
    ['no-store of the request', { 'cache-control': 'max-age=60' }, { requestNoStore: true }, 'request-no-store'],
    ['no-store', { 'cache-control': 'no-store, max-age=60' }, {}, 'no-store'],
    ['no-store in another line', { 'cache-control': ['max-age=60', 'No-Store'] }, {}, 'no-store'],
    ['unreadable Cache-Control', { 'cache-control': 'max-age=60 no-store' }, {}, 'no-store'],
    // RFC 9111 section 5.2.2.3: no-store beside must-understand is for caches that do not know it.
    ['must-understand and no-store', { 'cache-control': 'must-understand, no-store, max-age=60' }, {}, 60_000],
    ['must-understand of an unknown status', { 'cache-control': 'must-understand, max-age=60' }, { status: 599 }, 'status'],
    ['must-understand and private', { 'cache-control': 'must-understand, no-store, private' }, {}, 'private'],
    ['private', { 'cache-control': 'private, max-age=60' }, {}, 'private'],
    ['private with field names', { 'cache-control': 'max-age=60, private="x-user"' }, {}, 60_000],
    ['private with the name of a field that cannot be left out', { 'cache-control': 'max-age=60, private="x-user, vary"' }, {}, 'private'],
    ['Set-Cookie that is withheld', { 'cache-control': 'max-age=60, private="set-cookie"', 'set-cookie': 'a=1' }, {}, 60_000],
    ['Set-Cookie beside another that is withheld', { 'cache-control': 'max-age=60, no-cache="x"', 'set-cookie': 'a=1' }, {}, 'set-cookie'],
    ['private with broken field names', { 'cache-control': 'max-age=60, private="x-user' }, {}, 'no-store'],
    ['Set-Cookie', { 'cache-control': 'public, max-age=60', 'set-cookie': 'a=1' }, {}, 'set-cookie'],
    ['Set-Cookie and a rule', { 'set-cookie': ['a=1'] }, { rules: hour }, 'set-cookie'],
    ['Vary: *', { 'cache-control': 'max-age=60', vary: '*' }, {}, 'vary-any'],
    ['Vary: * among others', { 'cache-control': 'max-age=60', vary: ['accept', 'x, *'] }, {}, 'vary-any'],
    // RFC 9111 section 3.5
    ['Authorization', { 'cache-control': 'max-age=60' }, { authorized: true }, 'authorization'],
    ['Authorization and a rule', {}, { authorized: true, rules: hour }, 'authorization'],
    ['Authorization and Expires', { expires: date(60_000) }, { authorized: true }, 'authorization'],
    ['Authorization and public', { 'cache-control': 'public, max-age=60' }, { authorized: true }, 60_000],
    ['Authorization and must-revalidate', { 'cache-control': 'must-revalidate, max-age=60' }, { authorized: true }, 60_000],
    ['Authorization and s-maxage', { 'cache-control': 's-maxage=60' }, { authorized: true }, 60_000],
    ['Authorization and proxy-revalidate', { 'cache-control': 'proxy-revalidate, max-age=60' }, { authorized: true }, 'authorization'],
    ['Authorization, public, private', { 'cache-control': 'public, private, max-age=60' }, { authorized: true }, 'private'],
    // Statuses
    ['a part', { 'cache-control': 'max-age=60' }, { status: 206 }, 'status'],
    ['304', { 'cache-control': 'max-age=60' }, { status: 304 }, 'status'],
    ['an interim answer', { 'cache-control': 'max-age=60' }, { status: 103 }, 'status'],
    ['302 without freshness', { etag: '"a"' }, { status: 302 }, 'status'],
    ['302 with freshness', { 'cache-control': 'max-age=60' }, { status: 302 }, 60_000],
    ['302 with public', { 'cache-control': 'public', etag: '"a"' }, { status: 302 }, 0],
    ['500 with freshness', { 'cache-control': 'max-age=60' }, { status: 500 }, 60_000],
    ['500 without', { etag: '"a"' }, { status: 500 }, 'status'],
    ['an unknown status with freshness', { 'cache-control': 'max-age=60' }, { status: 299 }, 60_000],
    ['404 without freshness, with a tag', { etag: '"a"' }, { status: 404 }, 0],
    // No freshness
    ['nothing said', {}, {}, 'no-freshness'],
    ['a tag alone: kept to be confirmed', { etag: '"a"' }, {}, 0],
    // RFC 9111 section 4.2.2
    ['a tenth of the time since it was modified', { 'last-modified': date(-100_000) }, {}, 10_000],
    ["the same by the origin's clock", { 'last-modified': date(-100_000), date: date(-40_000) }, {}, 6000],
    ['a day at most', { 'last-modified': date(-100 * 86_400_000) }, {}, 86_400_000],
    ['modified in the future: kept to be confirmed', { 'last-modified': date(1000) }, {}, 0],
    ['modified at no date', { 'last-modified': 'x' }, {}, 0],
    ['public of a status that is not guessed for', { 'cache-control': 'public', 'last-modified': date(-100_000) }, { status: 302 }, 10_000],
    ['a status that is not guessed for', { 'last-modified': date(-100_000) }, { status: 302 }, 'status'],
    ['no-cache is not guessed for', { 'cache-control': 'no-cache', 'last-modified': date(-100_000) }, {}, 0],
    // RFC 5861
    ['never fresh, but to be served stale', { 'cache-control': 'max-age=0, stale-while-revalidate=60' }, {}, 0],
    // RFC 9213
    ['CDN-Cache-Control before Cache-Control', { 'cache-control': 'no-store', 'cdn-cache-control': 'max-age=60' }, {}, 60_000],
    ['CDN-Cache-Control before Expires', { expires: date(60_000), 'cdn-cache-control': 'must-revalidate', etag: '"a"' }, {}, 0],
    ['CDN-Cache-Control: no-store', { 'cache-control': 'max-age=60', 'cdn-cache-control': 'no-store' }, {}, 'no-store'],
    ['CDN-Cache-Control that cannot be read', { 'cache-control': 'max-age=60', 'cdn-cache-control': 'Max-Age=1' }, {}, 60_000],
    ['CDN-Cache-Control that is empty', { 'cache-control': 'max-age=60', 'cdn-cache-control': '' }, {}, 60_000],
    ['CDN-Cache-Control with a number of another type', { 'cache-control': 'max-age=60', 'cdn-cache-control': 'max-age=5.0, public', etag: '"a"' }, {}, 0],
    ['max-age=0', { 'cache-control': 'max-age=0' }, {}, 'no-freshness'],
    ['max-age=0 with a tag', { 'cache-control': 'max-age=0', etag: '"a"' }, {}, 0],
    ['no-cache', { 'cache-control': 'no-cache, max-age=60' }, {}, 'no-freshness'],
    ['no-cache with a tag', { 'cache-control': 'no-cache, max-age=60', etag: '"a"' }, {}, 0],
    ['no-cache with field names and a tag', { 'cache-control': 'no-cache="x", max-age=60', etag: '"a"' }, {}, 60_000],
    ['no-cache beats a rule', { 'cache-control': 'no-cache', etag: '"a"' }, { rules: hour }, 0],
    ['Pragma in a response means nothing', { pragma: 'no-cache', 'cache-control': 'max-age=60' }, {}, 60_000],
    // Precedence
    ['s-maxage before max-age', { 'cache-control': 'max-age=60, s-maxage=5' }, {}, 5000],
    ['s-maxage=0 before max-age', { 'cache-control': 'max-age=60, s-maxage=0' }, {}, 'no-freshness'],
    ['max-age before Expires', { 'cache-control': 'max-age=60', expires: date(5000), date: date(0) }, {}, 60_000],
    ['max-age=0 before Expires', { 'cache-control': 'max-age=0', expires: date(60_000), date: date(0) }, {}, 'no-freshness'],
    ['Expires less Date', { expires: date(60_000), date: date(20_000) }, {}, 40_000],
    ['Expires without Date', { expires: date(60_000) }, {}, 60_000],
    ['Expires with a broken Date', { expires: date(60_000), date: 'x' }, {}, 60_000],
    ['Expires before Date', { expires: date(0), date: date(1000) }, {}, 'no-freshness'],
    ['Expires: 0', { expires: '0', etag: '"a"' }, {}, 0],
    ['Expires twice', { expires: [date(60_000), date(60_000)], etag: '"a"' }, {}, 0],
    ['a rule before s-maxage', { 'cache-control': 's-maxage=5' }, { rules: hour }, 3_600_000],
    ['a rule before Expires', { expires: '0' }, { rules: hour }, 3_600_000],
    ['a rule of 0 stores nothing', { 'cache-control': 'max-age=60' }, { rules: [{ ttlMs: 0 }] }, 'no-freshness'],
    ['a rule of 0 stores nothing, however slow the origin', {}, { rules: [{ ttlMs: 0 }], initialAgeMs: 500 }, 'no-freshness'],
    // A rule says how long this cache keeps it: an origin that is a cache itself, and sends an Age of a day, would otherwise never be cached for an hour.
    ['a rule counts from the arrival', {}, { rules: hour, initialAgeMs: 86_400_000 }, 90_000_000],
    ['max-age counts from the origin', { 'cache-control': 'max-age=60' }, { initialAgeMs: 20_000 }, 60_000]
  ]
  test.each(cases)('%s', (_, fields, given, expected) => expect(decide(fields, given)).toBe(expected))
})

describe('rules', () => {
  const fits = (rule: Partial<TtlRule>, status: number, type?: string): boolean => decide(type === undefined ? {} : { 'content-type': type }, { status, rules: [{ ttlMs: 1000, ...rule }] }) === 1000

  test('without a status: for responses that are content', () => {
    expect([200, 203, 300, 301, 308].every((status) => fits({}, status))).toBe(true)
    expect([201, 204, 302, 307, 400, 401, 404, 410, 500, 503].some((status) => fits({}, status))).toBe(false)
  })

  test.each<[StatusPattern | StatusPattern[], number, boolean]>([
    [404, 404, true],
    ['404', 404, true],
    [404, 410, false],
    ['4xx', 404, true],
    ['4xx', 499, true],
    ['4xx', 500, false],
    ['4xx', 399, false],
    [['404', '5xx'], 404, true],
    [['404', '5xx'], 503, true],
    [['404', '5xx'], 410, false]
  ])('%j and status %d', (status, given, expected) => expect(fits({ status }, given)).toBe(expected))

  test.each<[string | string[], string | undefined, boolean]>([
    ['image/*', 'image/png', true],
    ['image/*', 'IMAGE/PNG; q=1', true],
    ['image/*', 'text/html', false],
    ['application/json', 'application/json; charset=utf-8', true],
    ['application/json', 'application/problem+json', false],
    ['*/*+json', 'application/problem+json', true],
    ['*/*+json', 'application/json', false],
    ['*/*', 'a/b', true],
    ['*/*', undefined, false],
    [['text/css', 'image/*'], 'text/css', true],
    [['text/css', 'image/*'], 'text/html', false]
  ])('content type %j and %j', (contentType, given, expected) => expect(fits({ contentType }, 200, given)).toBe(expected))

  test('the first that fits wins', () => {
    const rules: TtlRule[] = [
      { contentType: 'image/*', ttlMs: 1 },
      { status: '2xx', ttlMs: 2 },
      { status: 200, ttlMs: 3 }
    ]
    expect(decide({ 'content-type': 'image/png' }, { rules })).toBe(1)
    expect(decide({ 'content-type': 'text/css' }, { rules })).toBe(2)
  })

  test('a stored response gets the lifetime it was stored with', () => {
    const fields = headers({ 'content-type': 'image/png', 'cache-control': 'max-age=60' })
    expect(lifetimeMs(sampleMeta({ headers: fields }), policy())).toBe(60_000)
    expect(lifetimeMs(sampleMeta({ headers: fields, initialAgeMs: 500 }), policy([{ contentType: 'image/*', ttlMs: 1000 }]))).toBe(1500)
    expect(lifetimeMs(sampleMeta({ headers: headers({ 'cache-control': 'no-cache, max-age=60' }) }), policy())).toBe(0)
    expect(lifetimeMs(sampleMeta({ headers: headers() }), policy())).toBe(0)
  })
})

describe('age', () => {
  test.each([
    ['nothing said', {}, 0, 0],
    ['the time it took', {}, 300, 300],
    ['Age', { age: '7' }, 0, 7000],
    ['Age and the time it took', { age: '7' }, 300, 7300],
    ['an old Date', { date: date(-9000) }, 300, 9000],
    ['an old Date and an older Age', { date: date(-9000), age: '20' }, 300, 20_300],
    ['a Date in the future', { date: date(9000) }, 0, 0],
    ['no age', { age: 'x' }, 0, 0]
  ])('corrected_initial_age: %s', (_, fields, tookMs, expected) => {
    expect(initialAgeMs(headers(fields), tookMs, now)).toBe(expected)
  })

  test('current_age', () => {
    const meta = sampleMeta({ responseTime: now, initialAgeMs: 1500 })
    expect(currentAgeMs(meta, now + 10_000)).toBe(11_500)
    expect(currentAgeMs(meta, now - 10_000)).toBe(1500)
  })

  test.each([
    [undefined, 59_999, true],
    [undefined, 60_000, false],
    ['max-age=30', 30_000, true],
    ['max-age=30', 30_001, false],
    // RFC 9111 section 5.2.1.3: "no less than". The last moment used to be refused.
    ['min-fresh=30', 30_000, true],
    ['min-fresh=30', 30_001, false],
    ['min-fresh=0', 59_999, true],
    ['min-fresh=0', 60_000, false],
    ['no-cache', 0, false],
    ['max-stale=100', 60_000, false],
    ['max-stale', 60_000, false]
  ])('a minute of freshness, request %j, age %d ms', (control, ageMs, expected) => {
    expect(isFresh(60_000, ageMs, parseCacheControl(control))).toBe(expected)
  })
})
