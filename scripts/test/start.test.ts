import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'

const root = join(import.meta.dirname, '..', '..')
const LARGE = '/images/large.png'

/**
 * A supervisor signals what it has started: npm. npm passes the signal to the shell that runs the script; that shell died of it, npm said goodbye, and the
 * server ran on with nobody to stop it. The script replaces the shell now.
 */
test('SIGTERM to `npm start` ends the server, which finishes what is under way first, and then npm', async () => {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(?:npm_|S3_|REDIS_|UPSTREAM_|SERVER_|SSL_|CACHE_|RUST_LOG)/i.test(name)))
  // A group of its own, so that whatever is left over can be ended with it.
  const npm = spawn('npm', ['start', '--', '--listen', '127.0.0.1:0'], { cwd: root, env, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  const ended = once(npm, 'exit')
  onTestFinished(() => {
    try {
      process.kill(-(npm.pid as number), 'SIGKILL')
    } catch {
      // Nothing is left.
    }
  })
  const url = await new Promise<string>((resolve, reject) => {
    let text = ''
    npm.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      const [, found] = /The proxy listens on (\S+),/.exec(text) ?? []
      if (found !== undefined) resolve(found)
    })
    void ended.then(() => reject(new Error(text)))
  })

  const download = await new Promise<IncomingMessage>((resolve) => get(`${url}${LARGE}`, { agent: false }, resolve))
  npm.kill('SIGTERM')
  // Only once nobody new is let in has the signal arrived where it belongs.
  const port = Number(new URL(url).port)
  while (!(await isRefused(port))) await new Promise((resolve) => setTimeout(resolve, 10))
  expect(npm.exitCode ?? npm.signalCode).toBe(null)
  let bytes = 0
  for await (const chunk of download) bytes += (chunk as Buffer).length
  expect(bytes).toBe(Number(download.headers['content-length']))
  expect(await ended).toEqual([0, null])
})

function isRefused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' }, () => {
      socket.destroy()
      resolve(false)
    })
    socket.once('error', () => resolve(true))
  })
}
