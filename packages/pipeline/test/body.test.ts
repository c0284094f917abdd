import { once } from 'node:events'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { type BodySink, bodyLength, discardBody, type HeaderMap, isBodySource, ProxyError, readAll, toReadable, toSource, WholeBody } from '../src/index.ts'
import { ManualSource, pattern } from './sources.ts'

/** Writes down what it is told; takes bytes for as long as `takes` says so. */
class Recorder implements BodySink {
  readonly heard: string[] = []
  readonly over: Promise<void>
  failure: ProxyError | undefined
  takes = true
  private finish!: () => void

  constructor() {
    this.over = new Promise((resolve) => {
      this.finish = resolve
    })
  }

  data(chunk: Uint8Array): boolean {
    this.heard.push(Buffer.from(chunk).toString())
    return this.takes
  }
  end(trailers?: HeaderMap): void {
    this.heard.push(trailers === undefined ? 'END' : `END ${JSON.stringify(trailers)}`)
    this.finish()
  }
  error(error: ProxyError): void {
    this.heard.push('ERROR')
    this.failure = error
    this.finish()
  }
}

/** Unlike `once`, does not mind an error before it. */
const closed = (readable: Readable): Promise<void> => new Promise((resolve) => readable.once('close', resolve))
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const broken = new ProxyError('gone', { code: 'GONE', status: 502, source: 'upstream' })

describe('a body in memory', () => {
  test('is the same as text and as bytes, and can be sent any number of times', () => {
    for (const body of [new WholeBody('ab\xff'), new WholeBody(Buffer.from('ab\xff', 'latin1'))]) {
      for (let i = 0; i < 2; i++) {
        const chunks: Uint8Array[] = []
        const flow = body.start({ data: (chunk) => chunks.push(chunk) > 0, end: () => chunks.push(Buffer.from('.')), error() {} })
        flow.resume()
        flow.abort()
        expect(Buffer.concat(chunks)).toEqual(Buffer.from('ab\xff.', 'latin1'))
      }
      expect([body.length, Buffer.from(body.toBytes()).toString('latin1')]).toEqual([3, 'ab\xff'])
    }
  })

  test('may be empty', () => {
    const sink = new Recorder()
    new WholeBody('').start(sink)
    toSource(null).start(sink)
    toSource(new Uint8Array(0)).start(sink)
    expect(sink.heard).toEqual(['END', 'END', 'END'])
  })

  test('is told from the other kinds', () => {
    const source = new ManualSource(undefined, 5)
    expect([bodyLength(null), bodyLength(Buffer.from('ab')), bodyLength(new WholeBody('abc')), bodyLength(source), bodyLength(new ManualSource()), bodyLength(Readable.from([]))]).toEqual([
      0,
      2,
      3,
      5,
      undefined,
      undefined
    ])
    expect([isBodySource(source), isBodySource(null), isBodySource(Readable.from([])), isBodySource(Buffer.from(''))]).toEqual([true, false, false, false])
    expect(toSource(source)).toBe(source)
  })
})

describe('a stream as a source', () => {
  test('gives its bytes, text too, and ends once', async () => {
    const sink = new Recorder()
    toSource(Readable.from(['ä', Buffer.from('b')])).start(sink)
    await sink.over
    expect(sink.heard).toEqual(['ä', 'b', 'END'])
  })

  test('pauses when told, and goes on when told', async () => {
    const sink = new Recorder()
    sink.takes = false
    const readable = new PassThrough()
    const flow = toSource(readable).start(sink)
    readable.write('a')
    await turn()
    readable.end('b')
    await turn()
    expect([sink.heard, readable.isPaused()]).toEqual([['a'], true])
    sink.takes = true
    flow.resume()
    await sink.over
    expect(sink.heard).toEqual(['a', 'b', 'END'])
    flow.resume()
    flow.abort()
    expect(sink.heard).toHaveLength(3)
  })

  test('that broke before it was a source', async () => {
    const readable = new PassThrough()
    readable.on('error', () => {})
    readable.destroy(new Error('before'))
    await closed(readable)
    const sink = new Recorder()
    toSource(readable).start(sink)
    expect([sink.heard, sink.failure?.message, sink.failure?.code, sink.failure?.status]).toEqual([['ERROR'], 'before', 'BODY_BROKEN', 502])
  })

  test('that breaks between becoming a source and being started', async () => {
    const readable = new PassThrough()
    const source = toSource(readable)
    readable.destroy(new Error('between'))
    await closed(readable)
    const sink = new Recorder()
    source.start(sink)
    expect([sink.heard, sink.failure?.message]).toEqual([['ERROR'], 'between'])
  })

  test('that was closed without an error', async () => {
    const readable = new PassThrough()
    const source = toSource(readable)
    readable.destroy()
    await closed(readable)
    const sink = new Recorder()
    source.start(sink)
    expect(sink.heard).toEqual(['ERROR'])
  })

  test('that breaks after it was started', async () => {
    for (const cause of [new Error('after'), broken, undefined]) {
      const readable = new PassThrough()
      const sink = new Recorder()
      toSource(readable).start(sink)
      readable.write('a')
      await turn()
      readable.destroy(cause)
      await sink.over
      expect(sink.heard).toEqual(['a', 'ERROR'])
      expect(sink.failure?.code).toBe(cause === broken ? 'GONE' : 'BODY_BROKEN')
    }
  })

  test('that someone else has read is no empty body', async () => {
    const readable = Readable.from([Buffer.from('taken')])
    await buffer(readable)
    const sink = new Recorder()
    toSource(readable).start(sink)
    expect(sink.heard).toEqual(['ERROR'])
  })

  test('that yields something else than bytes breaks, and does no more', async () => {
    const sink = new Recorder()
    const readable = Readable.from([{ not: 'bytes' }, 'b'])
    toSource(readable).start(sink)
    await sink.over
    await closed(readable)
    expect(sink.heard).toEqual(['ERROR'])
  })

  test('is destroyed by an abort, and the sink hears nothing more', async () => {
    const sink = new Recorder()
    const readable = new PassThrough()
    const flow = toSource(readable).start(sink)
    readable.write('a')
    await turn()
    flow.abort()
    flow.abort()
    flow.resume()
    await closed(readable)
    expect([sink.heard, readable.destroyed]).toEqual([['a'], true])
  })
})

describe('a source as a stream', () => {
  test('reads no more than its reader takes', async () => {
    const source = new ManualSource()
    const readable = toReadable(source)
    expect(source.starts).toBe(0)
    readable.read(0)
    expect(source.starts).toBe(1)
    expect([source.sink?.data(pattern(40_000)), source.sink?.data(pattern(40_000))]).toEqual([true, false])
    expect(source.resumes).toBe(0)
    while (readable.read() !== null);
    expect(source.resumes).toBeGreaterThan(0)
    source.sink?.end({ sum: '1' })
    readable.resume()
    await once(readable, 'end')
    expect((readable as unknown as { trailers: HeaderMap }).trailers).toEqual({ sum: '1' })
  })

  test('that has everything at once', async () => {
    const source = new ManualSource((sink) => {
      sink.data(Buffer.from('a'))
      sink.data(Buffer.from('b'))
      sink.end()
    })
    expect((await buffer(toReadable(source))).toString()).toBe('ab')
    expect((await buffer(toReadable(null))).length).toBe(0)
    expect((await buffer(toReadable(Buffer.from('c')))).toString()).toBe('c')
    const readable = Readable.from([])
    expect(toReadable(readable)).toBe(readable)
  })

  test('that breaks, at once or later', async () => {
    await expect(buffer(toReadable(new ManualSource((sink) => sink.error(broken))))).rejects.toBe(broken)
    const source = new ManualSource()
    const read = buffer(toReadable(source))
    await source.until(({ starts }) => starts === 1)
    source.sink?.data(Buffer.from('a'))
    source.sink?.error(broken)
    await expect(read).rejects.toBe(broken)
    expect([source.aborts, source.discards]).toEqual([0, 0])
  })

  test('that is destroyed gives the source up, started or not', () => {
    const unread = new ManualSource()
    toReadable(unread).destroy()
    expect([unread.starts, unread.discards, unread.aborts]).toEqual([0, 1, 0])
    const reading = new ManualSource()
    const readable = toReadable(reading)
    readable.read(0)
    readable.destroy()
    expect([reading.discards, reading.aborts]).toEqual([0, 1])
    expect(reading.sink?.data(Buffer.from('late'))).toBe(false)
  })

  test('that is destroyed by what its start sets off', () => {
    const readable: Readable = toReadable(new ManualSource(() => readable.destroy()))
    readable.read(0)
    const source = new ManualSource(() => other.destroy())
    const other = toReadable(source)
    other.read(0)
    expect(source.aborts).toBe(1)
  })
})

describe('readAll', () => {
  test('joins what comes', async () => {
    expect((await readAll(null, 0)).length).toBe(0)
    expect((await readAll(new WholeBody('abc'), 3)).toString()).toBe('abc')
    expect((await readAll(Readable.from([Buffer.from('ab'), Buffer.from('c')]), 3)).toString()).toBe('abc')
  })

  test('stops a body of unknown length that is too large', async () => {
    const atOnce = new ManualSource((sink) => {
      sink.data(pattern(3))
      expect(sink.data(pattern(3))).toBe(false)
      sink.data(pattern(3))
    })
    await expect(readAll(atOnce, 5)).rejects.toMatchObject({ code: 'BODY_TOO_LARGE', status: 413 })
    expect(atOnce.aborts).toBe(1)
    const later = new ManualSource()
    const read = readAll(later, 5)
    later.sink?.data(pattern(6))
    await expect(read).rejects.toMatchObject({ code: 'BODY_TOO_LARGE' })
    expect(later.aborts).toBe(1)
  })

  test('does not start one that says that it is too large', async () => {
    const source = new ManualSource(undefined, 6)
    await expect(readAll(source, 5)).rejects.toMatchObject({ code: 'BODY_TOO_LARGE' })
    expect([source.starts, source.discards]).toEqual([0, 1])
    await expect(readAll(Buffer.alloc(6), 5)).rejects.toMatchObject({ code: 'BODY_TOO_LARGE' })
  })

  test('rejects with what the body broke off with', async () => {
    await expect(readAll(new ManualSource((sink) => sink.error(broken)), 5)).rejects.toBe(broken)
  })
})

describe('a body that nobody wants', () => {
  test('is given up', async () => {
    discardBody(null)
    discardBody(Buffer.from('a'))
    const source = new ManualSource()
    discardBody(source)
    expect([source.starts, source.discards]).toEqual([0, 1])
    const readable = new Readable({
      read() {},
      destroy: (_error, callback) => callback(new Error('nobody is told'))
    })
    discardBody(readable)
    await closed(readable)
    const wrapped = new PassThrough()
    toSource(wrapped).discard()
    expect([readable.destroyed, wrapped.destroyed]).toEqual([true, true])
  })
})
