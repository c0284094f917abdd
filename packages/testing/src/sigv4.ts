import { createHash, createHmac } from 'node:crypto'
import { request } from 'node:http'
import { buffer } from 'node:stream/consumers'

export interface S3Access {
  /** `http://HOST:PORT`, without a slash at the end. */
  readonly endpoint: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

export interface S3Request {
  method: string
  /** Bucket and key, encoded as it goes on the wire: `/bucket/a%20key`. */
  path: string
  headers?: Record<string, string>
  body?: string | Uint8Array
}

export interface S3Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: Buffer
}

/** Sends a request signed with AWS Signature Version 4 (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html). Paths without a query only. */
export async function s3Request(access: S3Access, { method, path, headers = {}, body = '' }: S3Request): Promise<S3Answer> {
  const url = new URL(access.endpoint)
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '')
  const payloadHash = sha256(body)
  const signed: Record<string, string> = { host: url.host, 'x-amz-content-sha256': payloadHash, 'x-amz-date': time }
  for (const [name, value] of Object.entries(headers)) signed[name.toLowerCase()] = value.trim()
  const names = Object.keys(signed).sort()
  const canonical = [method, path, '', ...names.map((name) => `${name}:${signed[name]}`), '', names.join(';'), payloadHash].join('\n')
  const scope = `${time.slice(0, 8)}/${access.region}/s3/aws4_request`
  const toSign = ['AWS4-HMAC-SHA256', time, scope, sha256(canonical)].join('\n')
  let key: string | Buffer = `AWS4${access.secretAccessKey}`
  for (const part of scope.split('/')) key = hmac(key, part)
  const authorization = `AWS4-HMAC-SHA256 Credential=${access.accessKeyId}/${scope}, SignedHeaders=${names.join(';')}, Signature=${hmac(key, toSign).toString('hex')}`
  return send(url, method, path, { ...signed, authorization, 'content-length': `${Buffer.byteLength(body)}` }, body)
}

/** Creates a bucket; one that is there already (200 or 409) is fine. Rejects with the server's words otherwise. */
export async function createBucket(access: S3Access, name: string): Promise<void> {
  const { status, body } = await s3Request(access, { method: 'PUT', path: `/${name}` })
  if (status !== 200 && status !== 409) throw new Error(`creating bucket ${name} failed with ${status}: ${body.toString()}`)
}

function send(url: URL, method: string, path: string, headers: Record<string, string>, body: string | Uint8Array): Promise<S3Answer> {
  return new Promise((resolve, reject) => {
    // A connection of its own: none is left behind for the test to wait for.
    const outgoing = request({ host: url.hostname, port: url.port || 80, method, path, headers, agent: false, timeout: 60_000 }, (incoming) => {
      buffer(incoming).then((bytes) => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: bytes }), reject)
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`${method} ${path}: no answer after 60 s`)))
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

const sha256 = (data: string | Uint8Array) => createHash('sha256').update(data).digest('hex')
const hmac = (key: string | Buffer, data: string) => createHmac('sha256', key).update(data).digest()
