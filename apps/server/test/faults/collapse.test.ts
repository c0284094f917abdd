import { type S3Service, sharedS3, startRedis } from '@proxy/testing'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { answerWith, holdPart, mixture, startContentOrigin } from './content.ts'
import { ask, load, problems } from './load.ts'
import { startRelay } from './relay.ts'
import { expectSound, imageProxy, secretName, startInProcess } from './subject.ts'

let s3: S3Service

beforeAll(async () => {
  s3 = await sharedS3()
})

/** S3 takes milliseconds to say that it has nothing, and gives nothing of an object before it has all of it: collapsing has to bridge both. */
describe('many clients at once, with Redis for failures and S3 for content', () => {
  async function startParts(large: string) {
    const held = new Map<string, () => void>()
    const [redis, relay, origin] = await Promise.all([
      startRedis(),
      startRelay(Number(new URL(s3.endpoint).port)),
      startContentOrigin((request, response) => {
        if (request.url === large && held.size === 0) holdPart(large, response, held)
        else answerWith(request.url ?? '', response)
      })
    ])
    onTestFinished(() => redis.stop())
    const config = imageProxy({ origin: origin.url, redis: redis.url, s3: { ...s3, endpoint: `http://127.0.0.1:${relay.port}` }, bucket: secretName('bucket') })
    return { origin, relay, subject: await startInProcess(config), sendRest: () => held.get(large)?.() }
  }

  // A request whose lookup had begun before the answer of another one was stored, and ended after that, found neither the answer nor the fill.
  test('what nobody has yet is fetched from the origin once', async () => {
    const { origin, subject } = await startParts('none of it')
    const outcomes = await load(subject, { path: (i) => `/${i % 2 === 0 ? 'none' : '1k'}/once/${Math.floor(i / 50) * 10 + (i % 10)}` })
    expect(problems(outcomes)).toEqual([])
    expect(Object.values(origin.asked('/')).filter((count) => count !== 1).length).toBe(0)
    await expectSound(subject, { storeErrors: [], secrets: [] })
  })

  // Whoever came when more than a window of it had passed was sent to the origin on its own.
  test('a large answer is fetched from the origin once, whenever its readers come', async () => {
    const large = '/6m/large'
    const { origin, subject, sendRest } = await startParts(large)
    const begun = Promise.withResolvers<void>()
    const first = ask(subject, large, { onAnswer: begun.resolve })
    await begun.promise
    sendRest()
    const outcomes = await load(subject, { path: (i) => (i < 20 ? large : mixture('beside')(i)) })
    expect(problems([await first, ...outcomes])).toEqual([])
    expect(origin.asked(large)).toEqual({ [large]: 1 })
    await expectSound(subject, { storeErrors: [], secrets: [] })
  })
})
