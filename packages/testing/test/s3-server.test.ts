import { afterAll, beforeAll, expect, test } from 'vitest'
import { rawExchange } from '../src/raw-client.ts'
import { type S3Server, startS3 } from '../src/s3-server.ts'
import { s3Request } from '../src/sigv4.ts'
import { isRunning } from './support/processes.ts'

let server: S3Server
beforeAll(async () => {
  server = await startS3()
})
afterAll(() => server.stop())

const ask = (timeoutMs: number) => rawExchange(server.port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', { timeoutMs })

test('stores and serves objects in a bucket', async () => {
  await server.createBucket('first')
  await server.createBucket('first')
  const body = Buffer.from([0, 1, 2, 255, ...Buffer.from('text')])
  const path = '/first/a%20key%2Bwith/%C3%A4'
  const put = await s3Request(server, { method: 'PUT', path, body, headers: { 'Content-Type': 'text/x', 'x-amz-meta-colour': 'red' } })
  expect([put.status, put.body.toString()]).toEqual([200, ''])
  const get = await s3Request(server, { method: 'GET', path, headers: { Range: 'bytes=1-' } })
  expect([get.status, get.body]).toEqual([206, body.subarray(1)])
  expect(get.headers).toMatchObject({ 'content-type': 'text/x', 'x-amz-meta-colour': 'red' })
  expect((await s3Request(server, { method: 'DELETE', path })).status).toBe(204)
  expect((await s3Request(server, { method: 'GET', path })).status).toBe(404)
})

test('checks who asks', async () => {
  await server.createBucket('private')
  const put = { method: 'PUT', path: '/private/key', body: 'x' }
  expect((await s3Request({ ...server, secretAccessKey: 'wrong' }, put)).status).toBe(403)
  expect((await s3Request({ ...server, accessKeyId: 'NOBODY' }, put)).status).toBe(403)
  expect((await fetch(`${server.endpoint}/private/key`)).status).toBe(403)
  expect((await s3Request(server, put)).status).toBe(200)
})

test('a bucket that cannot be made is an error', async () => {
  await expect(server.createBucket('No')).rejects.toThrow(/creating bucket No failed with 400: .*InvalidBucketName/)
})

test('freeze: no reply until thaw', async () => {
  server.freeze()
  const early = ask(30_000)
  await expect(ask(200)).rejects.toThrow(/no end after 200 ms/)
  server.thaw()
  expect((await early).toString()).toMatch(/^HTTP\/1.1 200/)
})

test('kill: refused', async () => {
  const own = await startS3()
  await own.kill()
  expect(isRunning(own.pid)).toBe(false)
  await expect(rawExchange(own.port, 'GET / HTTP/1.1\r\n\r\n')).rejects.toThrow(/ECONNREFUSED/)
  await own.stop()
})
