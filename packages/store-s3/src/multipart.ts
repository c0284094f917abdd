import type { CompletedPart } from '@aws-sdk/client-s3'
import { toS3Error } from './errors.ts'
import type { ObjectClient } from './object-client.ts'

/** Multipart uploads that could not be aborted, because the storage was away: their parts take room until it is told. Bounded; a lifecycle rule of the bucket takes the rest. */
export class OrphanedUploads {
  private readonly uploads: { name: string; id: string }[] = []
  private busy = false

  add(name: string, id: string): void {
    if (this.uploads.length < 64) this.uploads.push({ name, id })
  }

  /** Aborts what is listed, now that the storage answers again. */
  async sweep(client: ObjectClient): Promise<void> {
    if (this.busy) return
    this.busy = true
    try {
      for (let left = this.uploads.length; left > 0; left--) {
        const upload = this.uploads.shift()
        if (upload !== undefined) await this.retry(client, upload)
      }
    } finally {
      this.busy = false
    }
  }

  private async retry(client: ObjectClient, upload: { name: string; id: string }): Promise<void> {
    try {
      await client.abortUpload(upload.name, upload.id)
    } catch (error) {
      // Not found means that somebody else removed it; anything else is tried again with a later write.
      if (toS3Error(error).kind !== 'not-found') this.add(upload.name, upload.id)
    }
  }
}

/** One multipart upload: parts are sent one after the other, in the order they are added. */
export class MultipartUpload {
  private readonly client: ObjectClient
  private readonly name: string
  private readonly id: string
  private readonly parts: CompletedPart[] = []

  private constructor(client: ObjectClient, name: string, id: string) {
    this.client = client
    this.name = name
    this.id = id
  }

  static async begin(client: ObjectClient, name: string): Promise<MultipartUpload> {
    return new MultipartUpload(client, name, await client.createUpload(name))
  }

  async send(number: number, bytes: Buffer, signal: AbortSignal): Promise<void> {
    this.parts.push(await this.client.uploadPart(this.name, this.id, number, bytes, signal))
  }

  complete(): Promise<void> {
    this.parts.sort((a, b) => (a.PartNumber ?? 0) - (b.PartNumber ?? 0))
    return this.client.completeUpload(this.name, this.id, this.parts)
  }

  /** Removes the parts sent so far, or leaves that to `orphans`. Never rejects. */
  async abort(orphans: OrphanedUploads): Promise<void> {
    try {
      await this.client.abortUpload(this.name, this.id)
    } catch {
      orphans.add(this.name, this.id)
    }
  }
}
