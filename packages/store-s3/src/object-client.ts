import { Readable } from 'node:stream'
import type { CompletedPart } from '@aws-sdk/client-s3'
import { S3Error, toS3Error } from './errors.ts'
import type { ResolvedOptions } from './options.ts'
import { loadSdk, type Sdk } from './sdk.ts'

/** First and last byte, both inclusive. */
export interface ObjectRange {
  readonly start: number
  readonly end: number
}

export interface FetchedObject {
  readonly stream: Readable
  readonly etag: string
  /** Bytes of the whole object, whatever part of it comes. */
  readonly size: number
  /** Offset of the stream's first byte, and how many it brings. */
  readonly start: number
  readonly bytes: number
  readonly metadata: Readonly<Record<string, string>>
}

interface GetObject {
  readonly range?: ObjectRange
  readonly ifMatch?: string
  readonly signal: AbortSignal
  /** On the connections of writes: no hit waits for it. */
  readonly inBackground?: boolean
}

export interface ObjectNames {
  readonly names: readonly string[]
  /** Where the next page begins; undefined for the last one. */
  readonly next: string | undefined
}

/** The requests that the store makes, each one round trip. All reject with `S3Error` alone. The SDK is loaded by the first of them. */
export class ObjectClient {
  /** Whether the SDK is loaded: until then a missed deadline says nothing about the storage. */
  ready = false
  private readonly options: ResolvedOptions
  private readonly bucket: string
  private loading: Promise<Sdk> | undefined
  private closed = false
  /** Conditions on the target of a delete or copy are not known everywhere: turned off for good by a server that answers them with 501. */
  private conditional = true

  constructor(options: ResolvedOptions) {
    this.options = options
    this.bucket = options.bucket
  }

  load(): Promise<Sdk> {
    return (this.loading ??= loadSdk(this.options).then((sdk) => {
      this.ready = true
      if (this.closed) destroyClients(sdk)
      return sdk
    }))
  }

  async get(name: string, { range, ifMatch, signal, inBackground = false }: GetObject): Promise<FetchedObject> {
    const { commands, reads, writes } = await this.load()
    const input = { Bucket: this.bucket, Key: name, ...(range !== undefined && { Range: `bytes=${range.start}-${range.end}` }), ...(ifMatch !== undefined && { IfMatch: ifMatch }) }
    const answer = await settled((inBackground ? writes : reads).send(new commands.GetObjectCommand(input), { abortSignal: signal }))
    const { Body: stream, ETag: etag, ContentLength: length, ContentRange: part, Metadata: metadata = {} } = answer
    if (!(stream instanceof Readable)) throw new S3Error('unsupported')
    const place = part === undefined ? { start: 0, size: length } : placeOf(part)
    if (etag === undefined || length === undefined || place?.size === undefined) {
      stream.on('error', () => {}) // its end is not of interest any more
      stream.destroy()
      throw new S3Error('unsupported')
    }
    return { stream, etag, metadata, start: place.start, size: place.size, bytes: length }
  }

  /** Names that begin with `prefix`, up to a thousand of them. */
  async list(prefix: string, from: string | undefined): Promise<ObjectNames> {
    const { commands, writes } = await this.load()
    const command = new commands.ListObjectsV2Command({ Bucket: this.bucket, Prefix: prefix, ...(from !== undefined && { ContinuationToken: from }) })
    const { Contents: found = [], NextContinuationToken: next } = await settled(writes.send(command))
    return { names: found.flatMap(({ Key: name }) => (name === undefined ? [] : [name])), next }
  }

  /** The ETag of the object. */
  async head(name: string): Promise<string | undefined> {
    const { commands, writes } = await this.load()
    const { ETag: etag } = await settled(writes.send(new commands.HeadObjectCommand({ Bucket: this.bucket, Key: name })))
    return etag
  }

  async put(name: string, body: Buffer, signal: AbortSignal): Promise<void> {
    const { commands, writes } = await this.load()
    const command = new commands.PutObjectCommand({ Bucket: this.bucket, Key: name, Body: body, ContentLength: body.byteLength, ContentType: contentType })
    await this.inBucket(() => writes.send(command, { abortSignal: signal }))
  }

  /** Without a signal: an upload that was begun unnoticed could not be aborted. */
  async createUpload(name: string): Promise<string> {
    const { commands, writes } = await this.load()
    const command = new commands.CreateMultipartUploadCommand({ Bucket: this.bucket, Key: name, ContentType: contentType })
    const { UploadId: id } = await this.inBucket(() => writes.send(command))
    if (id === undefined) throw new S3Error('unsupported')
    return id
  }

  async uploadPart(name: string, uploadId: string, number: number, body: Buffer, signal: AbortSignal): Promise<CompletedPart> {
    const { commands, writes } = await this.load()
    const command = new commands.UploadPartCommand({ Bucket: this.bucket, Key: name, UploadId: uploadId, PartNumber: number, Body: body, ContentLength: body.byteLength })
    const { ETag: etag } = await settled(writes.send(command, { abortSignal: signal }))
    return { PartNumber: number, ETag: etag }
  }

  async completeUpload(name: string, uploadId: string, parts: CompletedPart[]): Promise<void> {
    const { commands, writes } = await this.load()
    await settled(writes.send(new commands.CompleteMultipartUploadCommand({ Bucket: this.bucket, Key: name, UploadId: uploadId, MultipartUpload: { Parts: parts } })))
  }

  async abortUpload(name: string, uploadId: string): Promise<void> {
    const { commands, writes } = await this.load()
    await settled(writes.send(new commands.AbortMultipartUploadCommand({ Bucket: this.bucket, Key: name, UploadId: uploadId })))
  }

  /** Removes the object as long as it is the one with this ETag, where the server can tell; others remove what is there. */
  async remove(name: string, etag: string | undefined): Promise<void> {
    const { commands, writes } = await this.load()
    const input = { Bucket: this.bucket, Key: name }
    await this.guarded(etag, (condition) => writes.send(new commands.DeleteObjectCommand({ ...input, ...condition })))
  }

  /**
   * Replaces the user metadata of the object with this ETag, by a copy onto itself. Some servers check neither condition; where the copy then meets a newer
   * object, that one gets metadata which it can tell from its own.
   */
  async replaceMetadata(name: string, etag: string, metadata: Record<string, string>): Promise<void> {
    const { commands, writes } = await this.load()
    const source = `${this.bucket}/${name.split('/').map(encodeURIComponent).join('/')}`
    const input = {
      Bucket: this.bucket,
      Key: name,
      CopySource: source,
      CopySourceIfMatch: etag,
      MetadataDirective: 'REPLACE',
      Metadata: metadata,
      ContentType: contentType
    } as const
    await this.guarded(etag, (condition) => writes.send(new commands.CopyObjectCommand({ ...input, ...condition })))
  }

  /** Whether the bucket is there and may be used; makes it where that is wanted. Rejects with what stands against it. */
  async checkBucket(): Promise<void> {
    const { commands, writes } = await this.load()
    try {
      await settled(writes.send(new commands.HeadBucketCommand({ Bucket: this.bucket })))
    } catch (error) {
      if ((error as S3Error).kind !== 'not-found') throw error
      if (!this.options.createBucket) throw new S3Error('no-bucket', (error as S3Error).cause)
      await this.createBucket()
    }
  }

  destroy(): void {
    this.closed = true
    // A load that failed has nothing to destroy; whoever asked for it was told.
    this.loading?.then(destroyClients, () => {})
  }

  /** Does something to the object with this ETag, unconditionally where the server does not know such a condition. */
  private async guarded(etag: string | undefined, act: (condition: { IfMatch?: string }) => Promise<unknown>): Promise<void> {
    if (etag !== undefined && this.conditional) {
      try {
        await settled(act({ IfMatch: etag }))
        return
      } catch (error) {
        if ((error as S3Error).kind !== 'unsupported') throw error
        this.conditional = false
      }
    }
    await settled(act({}))
  }

  /** Does a write, once more where the bucket had to be made first. */
  private async inBucket<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await settled(write())
    } catch (error) {
      if ((error as S3Error).kind !== 'no-bucket' || !this.options.createBucket) throw error
      await this.createBucket()
      return settled(write())
    }
  }

  private async createBucket(): Promise<void> {
    const { commands, writes } = await this.load()
    try {
      await writes.send(new commands.CreateBucketCommand({ Bucket: this.bucket }))
    } catch (error) {
      // Another process may have made it first.
      if (!/^BucketAlready(OwnedByYou|Exists)$/.test((error as Error).name)) throw toS3Error(error)
    }
  }
}

const contentType = 'application/octet-stream'

function destroyClients(sdk: Sdk): void {
  sdk.reads.destroy()
  sdk.writes.destroy()
}

function settled<T>(sent: Promise<T>): Promise<T> {
  return sent.catch((error: unknown) => {
    throw toS3Error(error)
  })
}

/** `bytes 0-99/1234` */
function placeOf(contentRange: string): { start: number; size: number } | undefined {
  const match = /^bytes (\d+)-\d+\/(\d+)$/.exec(contentRange)
  return match === null ? undefined : { start: Number(match[1]), size: Number(match[2]) }
}
