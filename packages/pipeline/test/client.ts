import { once } from 'node:events'
import { Agent, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http'
import { connect, type Socket } from 'node:net'

export interface Answer {
  readonly status: number
  readonly message: string
  readonly headers: IncomingMessage['headers']
  /** Names as sent, each with its value. */
  readonly lines: [string, string][]
  readonly body: Buffer
  readonly trailers: NodeJS.Dict<string>
  /** The connection it came over. */
  readonly localPort: number
}

export interface Ask {
  readonly method?: string
  readonly path?: string
  readonly headers?: OutgoingHttpHeaders
  readonly body?: string | Uint8Array
  readonly agent?: Agent
}

/** One exchange by node:http's client; on its own connection unless an agent is given. Rejects when the answer breaks off. */
export function ask(port: number, { method = 'GET', path = '/', headers = {}, body, agent }: Ask = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, method, path, headers, agent: agent ?? false })
    sent.on('error', reject)
    sent.on('response', (incoming) => {
      const chunks: Buffer[] = []
      const localPort = incoming.socket.localPort as number
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
      incoming.on('error', reject)
      incoming.on('end', () => {
        resolve({
          status: incoming.statusCode as number,
          message: incoming.statusMessage as string,
          headers: incoming.headers,
          lines: pairs(incoming.rawHeaders),
          body: Buffer.concat(chunks),
          trailers: incoming.trailers,
          localPort
        })
      })
    })
    sent.end(body)
  })
}

function pairs(raw: readonly string[]): [string, string][] {
  const list: [string, string][] = []
  for (let i = 0; i < raw.length; i += 2) list.push([raw[i] as string, raw[i + 1] as string])
  return list
}

/** An agent with one connection, which it keeps. */
export function oneConnection(): Agent {
  return new Agent({ keepAlive: true, maxSockets: 1 })
}

/** A bare connection that has sent `text`. */
export async function open(port: number, text: string): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(text)
  return socket
}

/** Lets the server do what it can: a number of exchanges one after the other, over connections of their own. */
export async function settle(port: number, path = '/settle'): Promise<void> {
  for (let i = 0; i < 10; i++) await ask(port, { path })
}
