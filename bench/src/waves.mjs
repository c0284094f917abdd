// Load for collapsing: waves of clients that all ask for one URL which nobody has yet, each on a connection of its own that is kept. Prints `{ requests, bad, waves }`.
// Arguments: port, path, clients, seconds.
import net from 'node:net'

const [port, path, count, seconds] = process.argv.slice(2)
const start = Date.now()
let requests = 0
let bad = 0
let waves = 0

/** One connection. Knows of HTTP what these answers need: Content-Length, and that the next one begins behind it. */
class Client {
  constructor() {
    this.socket = net.connect({ port: Number(port), host: '127.0.0.1', noDelay: true })
    this.socket.on('data', (chunk) => this.take(chunk))
    this.socket.on('error', () => this.finish(false))
    this.socket.on('close', () => this.finish(false))
  }

  ask(url) {
    return new Promise((resolve) => {
      this.resolve = resolve
      this.head = ''
      this.left = undefined
      this.socket.write(`GET ${url} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`)
    })
  }

  take(chunk) {
    let bytes = chunk.length
    if (this.left === undefined) {
      this.head += chunk.toString('latin1')
      const end = this.head.indexOf('\r\n\r\n')
      if (end === -1) return
      bytes = this.head.length - end - 4
      this.ok = this.head.startsWith('HTTP/1.1 200')
      this.left = Number(/^content-length: *(\d+)/im.exec(this.head)?.[1])
    }
    this.left -= bytes
    if (!(this.left > 0)) this.finish(this.ok && this.left === 0)
  }

  finish(ok) {
    const { resolve } = this
    this.resolve = undefined
    resolve?.(ok)
  }
}

const clients = Array.from({ length: Number(count) }, () => new Client())
while (Date.now() - start < seconds * 1000) {
  const url = `${path}?${process.pid}-${start}-${waves++}`
  for (const ok of await Promise.all(clients.map((client) => client.ask(url)))) {
    requests++
    if (!ok) bad++
  }
}
process.stdout.write(JSON.stringify({ requests, bad, waves }))
process.exit()
