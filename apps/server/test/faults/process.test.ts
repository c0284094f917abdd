import { type S3Service, sharedS3, startFaultProxy, startRedis } from '@proxy/testing'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { until } from '../helpers.ts'
import { answerWith, bytesOf, contentOf, mixture, startContentOrigin, writeHeadOf } from './content.ts'
import { ask, load, problems, verdictOf } from './load.ts'
import { expectSound, imageProxy, secretName, startAsProcess } from './subject.ts'

/** What of a body may be on its way to the client when its store fails. */
const BLOCK_BYTES = 64 * 1024

let s3: S3Service

beforeAll(async () => {
  s3 = await sharedS3()
})

test('one fault after another, and several at once: the process that started is the one that ends, in good order', async () => {
  const [password, bucket] = [secretName('password'), secretName('bucket')]
  const seen = new Set<string>()
  const [redis, s3Door, origin] = await Promise.all([
    startRedis({ args: ['--requirepass', password] }),
    startFaultProxy({ port: Number(new URL(s3.endpoint).port) }),
    startContentOrigin((request, response) => {
      const path = request.url ?? ''
      if (!path.includes('/broken-') || seen.has(path)) {
        answerWith(path, response)
        return
      }
      seen.add(path)
      const socket = request.socket
      if (path.includes('/broken-head/')) socket.destroy()
      else if (path.includes('/broken-garbage/')) socket.end('HTTP/9.9 garbage\r\n\r\n')
      else {
        writeHeadOf(path, response)
        response.write(bytesOf(path).subarray(0, 500), () => socket.resetAndDestroy())
      }
    })
  ])
  const originDoor = await startFaultProxy({ port: origin.port })
  onTestFinished(async () => {
    await Promise.all([redis.stop(), s3Door.stop(), originDoor.stop()])
  })
  const subject = await startAsProcess(
    imageProxy({
      origin: `http://127.0.0.1:${originDoor.port}`,
      redis: `redis://:${password}@127.0.0.1:${redis.port}`,
      s3: { ...s3, endpoint: `http://127.0.0.1:${s3Door.port}` },
      bucket
    })
  )
  const { pid } = subject.child
  const faulty = (i: number): string => `/1k/broken-${['head', 'body', 'garbage'][i % 3]}/${i}`
  const path = (i: number): string => (i % 10 === 9 ? faulty(i) : mixture('chaos')(i))

  const leaving = load(subject, { clients: 5, requests: 100, path: (i) => `/200k/leaving/${i}`, leave: true })
  const outcomes = await load(subject, {
    clients: 40,
    requests: 1500,
    path,
    at: {
      100: () => redis.freeze(),
      250: () => s3Door.setMode({ kind: 'refuse' }),
      400: () => redis.thaw(),
      500: () => redis.kill(),
      600: () => s3Door.setMode({ kind: 'freeze' }),
      700: () => s3Door.setMode({ kind: 'reset' }),
      800: () => redis.restart(),
      900: () => s3Door.setMode({ kind: 'cutAfter', bytes: 1000 }),
      1000: () => originDoor.setMode({ kind: 'refuse' }),
      1100: () => originDoor.setMode({ kind: 'pass' }),
      1200: () => s3Door.setMode({ kind: 'pass' })
    }
  })
  await leaving
  expect(problems(outcomes.filter((outcome) => verdictOf(outcome) === 'wrong'))).toEqual([])
  // What went wrong is the origin's, or was on its way out of a store that failed.
  const since = outcomes.filter(({ path: asked }) => !asked.includes('/broken-') && contentOf(asked).length <= BLOCK_BYTES)
  expect(problems(since.filter((outcome) => verdictOf(outcome) === 'cut'))).toEqual([])
  expect(new Set(outcomes.filter((outcome) => verdictOf(outcome) === 'failed').map(({ status }) => status))).toEqual(new Set([502]))

  await until(async () => verdictOf(await ask(subject, '/1k/after')) === 'right' && (await ask(subject, '/1k/after')).cache === 'HIT')
  await until(async () => (await ask(subject, '/none/after')).cache === 'NEGATIVE')
  expect(problems(await load(subject, { path: (i) => (i % 10 === 9 ? faulty(i) : mixture('after')(i)), requests: 200 }))).toEqual([])
  expect(subject.child.pid).toBe(pid)
  expect([subject.child.exitCode, subject.child.signalCode]).toEqual([null, null])
  await expectSound(subject, { storeErrors: ['redis', 's3'], secrets: [password, bucket, s3.accessKeyId, s3.secretAccessKey], incomplete: 'some' })
  subject.child.kill('SIGTERM')
  expect(await subject.exit).toEqual({ code: 0, signal: null })
})
