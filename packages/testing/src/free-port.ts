import { once } from 'node:events'
import { createServer } from 'node:net'

const firstPort = 20_000
const lastPort = 31_999

/**
 * A TCP port of 127.0.0.1 on which nothing listens, for servers that cannot be given port 0 or that must come back on the same port.
 * Taken from below the ephemeral range of Linux and macOS, so that no outgoing connection and no server on port 0 takes it meanwhile;
 * another process may still be given the same number before it is used: the caller retries with another one.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = firstPort + Math.floor(Math.random() * (lastPort - firstPort + 1))
    if (await isFree(port)) return port
  }
  throw new Error(`no free port between ${firstPort} and ${lastPort}`)
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  server.listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch {
    // in use: the answer, not a failure
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}
