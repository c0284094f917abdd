import { once } from 'node:events'
import { access } from 'node:fs/promises'
import { connect } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { rawExchange } from '../src/raw-client.ts'
import { type RedisServer, startRedis } from '../src/redis-server.ts'

const servers: RedisServer[] = []
const start = async (...args: string[]) => {
  const server = await startRedis({ args })
  servers.push(server)
  return server
}
afterEach(() => Promise.all(servers.splice(0).map((server) => server.stop())))

/** Sends one inline command and reads one reply of one line. */
const ask = async (server: RedisServer, command: string) => (await rawExchange(server.port, `${command}\r\n`, { until: /\r\n$/ })).toString()

test('is a real server on a port of its own', async () => {
  const [one, two] = await Promise.all([start(), start()])
  expect(one.url).toBe(`redis://127.0.0.1:${one.port}`)
  expect(await ask(one, 'SET key value')).toBe('+OK\r\n')
  expect((await rawExchange(one.port, '*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n', { until: 'value\r\n' })).toString()).toBe('$5\r\nvalue\r\n')
  expect(await ask(two, 'EXISTS key')).toBe(':0\r\n')
  expect(await ask(one, 'EVAL "return 7" 0')).toBe(':7\r\n')
})

test('takes arguments, and says what is wrong with them', async () => {
  const server = await start('--maxmemory', '3mb')
  expect((await rawExchange(server.port, 'CONFIG GET maxmemory\r\n', { until: /\d{7}\r\n$/ })).toString()).toContain('3145728')
  await expect(startRedis({ args: ['--no-such-setting', '1'] })).rejects.toThrow(/no-such-setting/)
})

test('takes a password for ready', async () => {
  const server = await start('--requirepass', 'secret')
  expect(await ask(server, 'PING')).toMatch(/^-NOAUTH/)
})

test('freeze: no reply until thaw', async () => {
  const server = await start()
  server.freeze()
  const socket = connect(server.port, '127.0.0.1')
  await once(socket, 'connect')
  let replied = false
  const reply = once(socket, 'data').then(() => {
    replied = true
  })
  socket.write('PING\r\n')
  await expect(rawExchange(server.port, 'PING\r\n', { timeoutMs: 200 })).rejects.toThrow(/no end after 200 ms/)
  expect(replied).toBe(false)
  server.thaw()
  await reply
  socket.destroy()
})

test('kill: refused; restart: empty on the same port', async () => {
  const server = await start()
  await ask(server, 'SET key value')
  const { pid, port } = server
  await server.kill()
  expect(() => process.kill(pid, 0)).toThrow(/ESRCH/)
  await expect(ask(server, 'PING')).rejects.toThrow(/ECONNREFUSED/)
  await server.restart()
  expect(server.port).toBe(port)
  expect(server.pid).not.toBe(pid)
  expect(await ask(server, 'EXISTS key')).toBe(':0\r\n')
  server.freeze()
  await server.restart()
  expect(await ask(server, 'PING')).toBe('+PONG\r\n')
})

test('restart keeps what persistence was asked to keep', async () => {
  const server = await start('--appendonly', 'yes', '--appendfsync', 'always')
  await ask(server, 'SET key value')
  await server.restart()
  expect(await ask(server, 'EXISTS key')).toBe(':1\r\n')
})

test('stop ends the process, frozen or not, removes its files, and may be called twice', async () => {
  const server = await start()
  const dir = (await rawExchange(server.port, 'CONFIG GET dir\r\n', { until: /redis-\w+\r\n$/ })).toString().trim().split('\r\n').at(-1) ?? ''
  await access(dir)
  server.freeze()
  await Promise.all([server.stop(), server.stop()])
  expect(() => process.kill(server.pid, 0)).toThrow(/ESRCH/)
  await expect(access(dir)).rejects.toThrow(/ENOENT/)
})
