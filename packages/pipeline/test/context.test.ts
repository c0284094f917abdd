import { describe, expect, test } from 'vitest'
import { Context, createContextKey, principal } from '../src/context.ts'
import { cacheResult, createExchangeKey, Exchange, upstreamAttempts } from '../src/exchange.ts'

describe('context', () => {
  test('is not changed by adding to it', () => {
    const key = createContextKey<number>('n')
    const one = Context.empty.with(key, 1)
    const two = one.with(key, 2)
    expect([Context.empty.get(key), one.get(key), two.get(key)]).toEqual([undefined, 1, 2])
  })

  test('tells keys apart by identity, not by name', () => {
    const a = createContextKey<string>('same')
    const b = createContextKey<string>('same')
    const context = Context.empty.with(a, 'a').with(b, 'b').with(principal, { id: 'me', scheme: 'basic' })
    expect([context.get(a), context.get(b), context.get(principal)?.id]).toEqual(['a', 'b', 'me'])
    expect(context.get(createContextKey('other'))).toBeUndefined()
  })

  test('keeps a value that was set to undefined', () => {
    const key = createContextKey<string | undefined>('k')
    expect(Context.empty.with(key, 'x').with(key, undefined).get(key)).toBeUndefined()
  })
})

describe('exchange record', () => {
  test('holds one value per key, the last', () => {
    const exchange = new Exchange()
    const key = createExchangeKey<number>('cacheResult')
    expect([exchange.requestId, exchange.get(cacheResult)]).toEqual(['', undefined])
    exchange.set(cacheResult, 'miss')
    exchange.set(upstreamAttempts, 1)
    exchange.set(key, 7)
    exchange.set(upstreamAttempts, 2)
    expect([exchange.get(cacheResult), exchange.get(upstreamAttempts), exchange.get(key)]).toEqual(['miss', 2, 7])
  })
})
