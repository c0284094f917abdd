import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { Socket } from 'node:net'
import { rawExchange } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { createHeaders, discardBody, type Handler, type ProxyRequest, readAll, toSource, WholeBody } from '../src/index.ts'
import { toNode } from '../src/node.ts'
import { fields } from './adapter-suite.ts'
import { ask, open, settle } from './client.ts'
import { listen, onServer } from './hosts.ts'
import { FlowingSource } from './sources.ts'

const text = (content: string) => ({ status: 200, headers: createHeaders(), body: new WholeBody(content) })

/** What arrives on a socket, until it holds `end`. */
async function until(socket: Socket, end: string): Promise<string> {
  let received = ''
  while (!received.includes(end)) received += String((await once(socket, 'data'))[0])
  return received
}

describe('the body of a request', () => {
  test('is one thing, however often it is looked at', async () => {
    const handler: Handler = async (given) => {
      const [first, second] = [given.body, given.body]
      return text(String(first === second && first !== null))
    }
    await onServer(toNode(handler), async (port) => {
      expect((await ask(port, { method: 'POST', body: 'x' })).body.toString()).toBe('true')
    })
  })

  test('cannot be read twice: the rest would pass for the whole', async () => {
    const handler: Handler = async (given) => {
      await readAll(given.body, 100)
      return text((await readAll(given.body, 100)).toString())
    }
    await onServer(toNode(handler), async (port) => {
      expect((await ask(port, { method: 'POST', body: 'x' })).status).toBe(500)
    })
  })

  test('cannot be read when the host has read it', async () => {
    const node = toNode(async (given) => text((await readAll(given.body, 100)).toString()))
    await onServer(
      (incoming, outgoing) => {
        incoming.resume()
        incoming.on('end', () => node(incoming, outgoing))
      },
      async (port) => {
        expect((await ask(port, { method: 'POST', body: 'x' })).status).toBe(500)
      }
    )
  })

  test('breaks off when the client leaves in the middle', async () => {
    let failure: unknown
    const handler: Handler = async (given) => {
      if (given.target === '/settle') return text('')
      failure = await readAll(given.body, 100).catch((error: unknown) => error)
      throw failure
    }
    await onServer(toNode(handler), async (port) => {
      for (const head of ['Content-Length: 10\r\n\r\n12345', 'Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n']) {
        failure = undefined
        const socket = await open(port, `POST / HTTP/1.1\r\nHost: a\r\n${head}`)
        await settle(port)
        socket.destroy()
        while (failure === undefined) await settle(port)
        expect(failure).toMatchObject({ code: 'CLIENT_ABORTED', status: 499 })
      }
    })
  })

  test('that is given up half-way is read and forgotten, and the connection goes on', async () => {
    const handler: Handler = async (given) => {
      if (given.body === null) return text('next')
      const flow = toSource(given.body).start({ data: () => false, end() {}, error() {} })
      flow.abort()
      flow.abort()
      flow.resume()
      return text('enough')
    }
    await onServer(toNode(handler), async (port) => {
      const size = 2_000_000
      const received = await rawExchange(
        port,
        Buffer.concat([Buffer.from(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`), Buffer.alloc(size), Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')]),
        { until: 'next' }
      )
      expect(String(received).match(/HTTP\/1\.1 200/g)).toHaveLength(2)
    })
  })

  test('is aborted without taking an error to the process, whoever has listened before', async () => {
    const handler: Handler = async (given) => {
      if (given.target === '/settle') return text('')
      const flow = toSource(given.body).start({ data: () => true, end() {}, error() {} })
      flow.abort()
      return new Promise(() => {})
    }
    await onServer(toNode(handler), async (port) => {
      const socket = await open(port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345')
      await settle(port)
      socket.destroy()
      await settle(port)
    })
  })
})

describe('100 Continue', () => {
  const head = (version: string, expectation = '100-continue') => `POST / HTTP/${version}\r\nHost: a\r\nExpect: ${expectation}\r\nContent-Length: 5\r\n\r\n`

  async function onContinueServer(handler: Handler, use: (port: number) => Promise<void>): Promise<void> {
    const listener = toNode(handler)
    const server = createServer(listener)
    server.on('checkContinue', listener)
    const { port, close } = await listen(server)
    try {
      await use(port)
    } finally {
      await close()
    }
  }

  test('is sent when the body is first read, and not before', async () => {
    let asked: ProxyRequest | undefined
    let goOn: () => void = () => {}
    const handler: Handler = async (given) => {
      if (given.target === '/settle') return text('')
      asked = given
      await new Promise<void>((resolve) => {
        goOn = resolve
      })
      return text((await readAll(given.body, 100)).toString())
    }
    await onContinueServer(handler, async (port) => {
      const socket = await open(port, head('1.1', '100-Continue'))
      while (asked === undefined) await settle(port)
      await settle(port)
      expect(socket.bytesRead).toBe(0)
      expect(asked.headers.expect).toBeUndefined()
      goOn()
      expect(await until(socket, '\r\n\r\n')).toBe('HTTP/1.1 100 Continue\r\n\r\n')
      socket.write('12345')
      expect(await until(socket, '12345')).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
      socket.destroy()
    })
  })

  test('is never sent for an upload that no layer wants, and the connection ends', async () => {
    for (const handler of [
      async () => ({ status: 413, headers: createHeaders(), body: null }),
      async (given: ProxyRequest) => {
        discardBody(given.body)
        return { status: 413, headers: createHeaders(), body: null }
      },
      async (given: ProxyRequest) => text((await readAll(given.body, 4)).toString())
    ] satisfies Handler[])
      await onContinueServer(handler, async (port) => {
        const received = String(await rawExchange(port, head('1.1')))
        expect(received).toMatch(/^HTTP\/1\.1 413 /)
        // What follows may be the body after all: nobody can say.
        expect(received).toContain('Connection: close')
      })
  })

  test('is not sent to HTTP/1.0', async () => {
    const handler: Handler = async (given) => text((await readAll(given.body, 100)).toString())
    await onContinueServer(handler, async (port) => {
      expect(String(await rawExchange(port, `${head('1.0')}12345`))).toMatch(/^HTTP\/1\.1 200 /)
    })
  })

  test('is sent for every form that node:http takes for it', async () => {
    const handler: Handler = async (given) => text((await readAll(given.body, 100)).toString())
    await onContinueServer(handler, async (port) => {
      const socket = await open(port, head('1.1', 'x, 100-continue'))
      expect(await until(socket, '\r\n\r\n')).toBe('HTTP/1.1 100 Continue\r\n\r\n')
      socket.destroy()
    })
  })

  test('is sent once where the server has no checkContinue listener', async () => {
    const handler: Handler = async (given) => text((await readAll(given.body, 100)).toString())
    await onServer(toNode(handler), async (port) => {
      const received = String(await rawExchange(port, `${head('1.1')}12345`, { until: '12345' }))
      expect(received.match(/100 Continue/g)).toHaveLength(1)
    })
  })
})

describe('interim answers', () => {
  const handler: Handler = async (given) => {
    if (given.target === '/late') {
      setImmediate(() => setImmediate(() => given.onInterim?.(103, fields({ link: '</late>; rel=preload' }))))
      return { status: 200, headers: createHeaders(), body: new FlowingSource(100_000) }
    }
    given.onInterim?.(103, fields({ link: ['</a>; rel=preload', '</b>; rel=preload'], connection: 'x-hop', 'x-hop': '1', 'content-length': '5', 'x-mine': '1' }))
    given.onInterim?.(102, createHeaders())
    given.onInterim?.(100, createHeaders())
    given.onInterim?.(101, fields({ upgrade: 'x' }))
    given.onInterim?.(200, createHeaders())
    given.onInterim?.(103, fields({ link: '</c>', 'x-bad': 'a\r\nb' }))
    return text('final')
  }

  test('go to the client before the final one, all that are for it and well formed', async () => {
    await onServer(toNode(handler), async (port) => {
      const received = String(await rawExchange(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', { until: 'final' }))
      expect(received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 103', 'HTTP/1.1 102', 'HTTP/1.1 200'])
      const early = received.slice(0, received.indexOf('HTTP/1.1 102'))
      expect(early).toContain('</a>; rel=preload')
      expect(early).toContain('</b>; rel=preload')
      expect(early).toContain('x-mine: 1')
      expect(early).not.toMatch(/x-hop|content-length/)
    })
  })

  test('are not for HTTP/1.0', async () => {
    await onServer(toNode(handler), async (port) => {
      expect(String(await rawExchange(port, 'GET / HTTP/1.0\r\n\r\n'))).toMatch(/^HTTP\/1\.1 200/)
    })
  })

  test('come no more once the final one has begun', async () => {
    await onServer(toNode(handler), async (port) => {
      const answer = await ask(port, { path: '/late' })
      expect([answer.body.length, answer.headers.link]).toEqual([100_000, undefined])
    })
  })
})

describe('the signal', () => {
  test('is not made unless it is read, and is one', async () => {
    let given: ProxyRequest | undefined
    await onServer(
      toNode(async (incoming) => {
        given = incoming
        const [first, second] = [incoming.signal, incoming.signal]
        return text(String(first === second))
      }),
      async (port) => {
        expect((await ask(port)).body.toString()).toBe('true')
        await settle(port)
        expect(given?.signal.aborted).toBe(false)
      }
    )
  })

  test('that is first read after a complete answer does not stop the work behind it', async () => {
    let given: ProxyRequest | undefined
    const node = toNode(async (incoming) => {
      if (incoming.target === '/') given = incoming
      return text('x')
    })
    await onServer(node, async (port) => {
      await ask(port)
      await settle(port)
      expect(given?.signal.aborted).toBe(false)
    })
  })

  test('that is first read after the client has left is aborted', async () => {
    let given: ProxyRequest | undefined
    let over = false
    const node = toNode(async (incoming) => {
      if (incoming.target === '/settle') return text('')
      given = incoming
      return new Promise(() => {})
    })
    await onServer(
      (incoming, outgoing) => {
        outgoing.on('close', () => {
          if (incoming.url === '/') over = true
        })
        node(incoming, outgoing)
      },
      async (port) => {
        const socket = await open(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
        while (given === undefined) await settle(port)
        socket.destroy()
        while (!over) await settle(port)
        expect([given.signal.aborted, (given.signal.reason as Error).message]).toEqual([true, 'the client closed the connection'])
      }
    )
  })

  test('reaches a request that waits behind another on its connection', async () => {
    const aborted: string[] = []
    let given = 0
    const handler: Handler = (incoming) => {
      if (incoming.target === '/settle') return Promise.resolve(text(''))
      given++
      incoming.signal.addEventListener('abort', () => aborted.push(incoming.target))
      return new Promise(() => {})
    }
    await onServer(toNode(handler), async (port) => {
      const socket = await open(port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
      while (given < 2) await settle(port)
      socket.destroy()
      while (aborted.length < 2) await settle(port)
      expect(aborted.sort()).toEqual(['/1', '/2'])
    })
  })
})

test('a request is made without reading its body: the client is answered first', async () => {
  await onServer(
    toNode(async () => text('early')),
    async (port) => {
      const sent = request({ host: '127.0.0.1', port, method: 'POST', agent: false, headers: { 'content-length': '1000000' } })
      sent.on('error', () => {})
      sent.flushHeaders()
      const [incoming] = (await once(sent, 'response')) as [{ statusCode: number }]
      expect(incoming.statusCode).toBe(200)
      sent.destroy()
    }
  )
})
