import { createHash, randomUUID } from 'node:crypto'
import { S3Client } from '@aws-sdk/client-s3'
import type { CacheMeta, CacheStore } from '@proxy/cache'
import { createHeaders } from '@proxy/pipeline'
import { sharedS3 } from '@proxy/testing'
import { S3Store, type S3StoreOptions } from '../src/index.ts'

interface Service {
  readonly endpoint: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

/** Deadlines that a busy machine keeps: only the tests of deadlines shorten them. */
export const patient = { firstByteTimeoutMs: 10_000, idleTimeoutMs: 10_000, requestTimeoutMs: 20_000 }

export const bucket = 'cached-objects'

/** The shared server, with the bucket made. */
export async function service(): Promise<Service> {
  const shared = await sharedS3()
  await shared.createBucket(bucket)
  const { endpoint, region, accessKeyId, secretAccessKey } = shared
  return { endpoint, region, accessKeyId, secretAccessKey }
}

/** A store under a prefix of its own, the SDK loaded. */
export async function createStore(at: Service, options: Partial<S3StoreOptions> = {}): Promise<S3Store> {
  const store = new S3Store({ ...patient, ...at, bucket, prefix: `${randomUUID()}/`, ...options })
  await store.prepare()
  return store
}

/** The SDK's own client, for what a test does behind the store's back. */
export function sdkClient(at: Service): S3Client {
  return new S3Client({
    endpoint: at.endpoint,
    region: at.region,
    credentials: { accessKeyId: at.accessKeyId, secretAccessKey: at.secretAccessKey },
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED'
  })
}

export function meta(changes: Partial<CacheMeta> = {}): CacheMeta {
  const now = Date.now()
  const headers = createHeaders()
  headers['content-type'] = 'image/png'
  return { v: 1, url: 'https://example.org/a.png', namespace: 'test', status: 200, headers, requestTime: now, responseTime: now, initialAgeMs: 0, keepUntil: now + 3_600_000, tags: [], ...changes }
}

export const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export function put(store: CacheStore, key: string, bytes: Uint8Array, changes: Partial<CacheMeta> = {}, chunkBytes = 65_536): Promise<boolean> {
  const writer = store.put(key, meta(changes))
  for (let at = 0; at < bytes.byteLength; at += chunkBytes) writer.write(bytes.subarray(at, at + chunkBytes))
  return writer.commit()
}
