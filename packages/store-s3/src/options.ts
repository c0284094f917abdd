import type { Clock } from '@proxy/pipeline'
import { systemClock } from '@proxy/pipeline'
import type { S3Fault } from './health.ts'
import { hashedObjectName } from './object-name.ts'

/** Keys as the service issued them. */
export interface S3Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  readonly expiration?: Date
}

export interface S3StoreOptions {
  readonly bucket: string
  /** `https://s3.example.org`. Default: AWS, in `region`. */
  readonly endpoint?: string
  /** Default `us-east-1` with an endpoint; without one, what the AWS SDK finds in the environment. */
  readonly region?: string
  /** With `secretAccessKey`. Default: `credentials`, and without those what the AWS SDK finds (environment, shared files, instance role). */
  readonly accessKeyId?: string
  readonly secretAccessKey?: string
  /** Credentials, or a function that is asked for them whenever they have expired. */
  readonly credentials?: S3Credentials | (() => Promise<S3Credentials>)
  /** Put before every object name. Default empty. */
  readonly prefix?: string
  /** Object name of a cache key, without the prefix; 1 to 1024 bytes with it. Default: SHA-256 in hex behind its first two digits, `ab/abcd…`. Keys that meet in one name evict each other but never mix. */
  readonly objectKey?: (key: string) => string
  /** `https://endpoint/bucket/object` instead of `https://bucket.endpoint/object`. Default: true with an endpoint. */
  readonly forcePathStyle?: boolean
  /** When the SDK adds its own checksum to requests. Most servers other than AWS refuse some of them. Default `WHEN_REQUIRED`: the stored blocks carry their own. */
  readonly requestChecksumCalculation?: 'WHEN_SUPPORTED' | 'WHEN_REQUIRED'
  /** When the SDK checks its own checksum of answers. Default `WHEN_REQUIRED`. */
  readonly responseChecksumValidation?: 'WHEN_SUPPORTED' | 'WHEN_REQUIRED'
  /** Tries of one request by the SDK, within the same deadline. Default 1: the origin is the second try. */
  readonly maxAttempts?: number
  /** From `get` (or a second read in `open`) to the first verified bytes. Default 200. */
  readonly firstByteTimeoutMs?: number
  /** Longest silence inside a body that is wanted, and longest wait of a body that nobody opens. Default 5000. */
  readonly idleTimeoutMs?: number
  /** Deadline of every other request: one part or object sent, a delete, a copy. Default 10000. */
  readonly requestTimeoutMs?: number
  /** Deadline of connecting. Default 1000. */
  readonly connectTimeoutMs?: number
  /** Connections for reads. While all of them carry bodies to slow readers, `get` rejects at once. Default 64. */
  readonly maxReadConnections?: number
  /** Objects and parts sent at a time, on connections that no read waits for. Default 8. */
  readonly maxWriteConnections?: number
  /** Objects that a sweep (of a purge) looks at at a time, one request for each. 0: there are no sweeps, and purges hold without. Default 4. */
  readonly sweepConcurrency?: number
  /** Larger bodies are not stored. Default 64 MiB. */
  readonly maxEntryBytes?: number
  /** Bound of the bytes that wait to be stored, all writes together; a write that does not fit is dropped. Default 64 MiB. */
  readonly maxPendingBytes?: number
  /** Larger objects are sent in parts of this size. At least 5 MiB, the least that S3 takes. Default 5 MiB. */
  readonly partBytes?: number
  /** When reads or writes stop being tried. Default: after 5 failures in a row, for 1000 ms (and up to a fifth more, so that a fleet does not probe in step). */
  readonly breaker?: { readonly failureThreshold?: number; readonly openMs?: number }
  /** Makes the bucket where a write or `prepare` finds that it is missing. Default false. */
  readonly createBucket?: boolean
  /** How long `close` waits for writes. Default 5000. */
  readonly closeTimeoutMs?: number
  /** Told when reads or writes are given up, once per outage, and of each broken object. What it throws becomes a process warning. */
  readonly onFault?: (fault: S3Fault) => void
  /** Default the system's. */
  readonly clock?: Clock
}

const MIN_PART_BYTES = 5 * 1024 * 1024

/** The options with every default filled in. Throws TypeError for one that cannot work. */
export function resolveOptions(options: S3StoreOptions) {
  const resolved = {
    ...options,
    region: options.region ?? (options.endpoint === undefined ? undefined : 'us-east-1'),
    credentials: credentialsOf(options),
    prefix: options.prefix ?? '',
    objectKey: options.objectKey ?? hashedObjectName,
    forcePathStyle: options.forcePathStyle ?? options.endpoint !== undefined,
    requestChecksumCalculation: options.requestChecksumCalculation ?? 'WHEN_REQUIRED',
    responseChecksumValidation: options.responseChecksumValidation ?? 'WHEN_REQUIRED',
    maxAttempts: options.maxAttempts ?? 1,
    firstByteTimeoutMs: options.firstByteTimeoutMs ?? 200,
    idleTimeoutMs: options.idleTimeoutMs ?? 5000,
    requestTimeoutMs: options.requestTimeoutMs ?? 10_000,
    connectTimeoutMs: options.connectTimeoutMs ?? 1000,
    maxReadConnections: options.maxReadConnections ?? 64,
    maxWriteConnections: options.maxWriteConnections ?? 8,
    sweepConcurrency: options.sweepConcurrency ?? 4,
    maxEntryBytes: options.maxEntryBytes ?? 64 * 1024 * 1024,
    maxPendingBytes: options.maxPendingBytes ?? 64 * 1024 * 1024,
    partBytes: options.partBytes ?? MIN_PART_BYTES,
    failureThreshold: options.breaker?.failureThreshold ?? 5,
    openMs: options.breaker?.openMs ?? 1000,
    createBucket: options.createBucket ?? false,
    closeTimeoutMs: options.closeTimeoutMs ?? 5000,
    onFault: options.onFault ?? (() => {}),
    clock: options.clock ?? systemClock
  } as const
  if (resolved.bucket === '') throw new TypeError('bucket must not be empty')
  if (resolved.endpoint !== undefined && !/^https?:\/\/[^/]/.test(resolved.endpoint)) throw new TypeError('endpoint must begin with http:// or https://')
  if (resolved.partBytes < MIN_PART_BYTES) throw new TypeError(`partBytes must be at least ${MIN_PART_BYTES}`)
  for (const name of [
    'firstByteTimeoutMs',
    'idleTimeoutMs',
    'requestTimeoutMs',
    'connectTimeoutMs',
    'maxReadConnections',
    'maxWriteConnections',
    'maxEntryBytes',
    'maxPendingBytes',
    'maxAttempts'
  ] as const) {
    if (!(resolved[name] > 0)) throw new TypeError(`${name} must be above 0`)
  }
  if (!Number.isInteger(resolved.sweepConcurrency) || resolved.sweepConcurrency < 0) throw new TypeError('sweepConcurrency must be an integer of at least 0')
  return resolved
}

export type ResolvedOptions = ReturnType<typeof resolveOptions>

function credentialsOf(options: S3StoreOptions): S3StoreOptions['credentials'] {
  const { accessKeyId, secretAccessKey } = options
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined)) throw new TypeError('accessKeyId and secretAccessKey belong together')
  if (accessKeyId === undefined || secretAccessKey === undefined) return options.credentials
  if (options.credentials !== undefined) throw new TypeError('accessKeyId and credentials exclude each other')
  return { accessKeyId, secretAccessKey }
}
