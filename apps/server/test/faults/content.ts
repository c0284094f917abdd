import { createCipheriv, createHash } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { type Origin, type OriginListener, startOrigin } from '@proxy/testing'
import { onTestFinished } from 'vitest'

/** What a path stands for: the first segment says which answer it gets and how large, all of its bytes depend on the whole path. */
const kinds: Readonly<Record<string, { readonly status: number; readonly bytes: number; readonly length?: false }>> = {
  '1k': { status: 200, bytes: 1024 },
  '200k': { status: 200, bytes: 200 * 1024 },
  /** Its length is not declared. */
  '200k-chunked': { status: 200, bytes: 200 * 1024, length: false },
  '6m': { status: 200, bytes: 6 * 1024 * 1024 },
  '20m': { status: 200, bytes: 20 * 1024 * 1024 },
  none: { status: 404, bytes: 300 },
  'none-20k': { status: 404, bytes: 20 * 1024 },
  error: { status: 500, bytes: 500 }
}

/** The answer that a path must have, and nothing else. */
export interface Content {
  readonly status: number
  readonly length: number
  readonly hash: string
}

const known = new Map<string, Content>()

export function contentOf(path: string): Content {
  let content = known.get(path)
  if (content === undefined) {
    const bytes = bytesOf(path)
    content = { status: kindOf(path).status, length: bytes.byteLength, hash: hashOf(bytes) }
    known.set(path, content)
  }
  return content
}

/** Noise that belongs to this path alone: a byte too few, too many or of another answer changes its hash. */
export function bytesOf(path: string): Buffer {
  const key = createHash('sha256').update(path).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(kindOf(path).bytes))
}

export function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function kindOf(path: string) {
  const kind = kinds[path.split('/')[1] ?? '']
  if (kind === undefined) throw new Error(`${path} is none of the test's paths`)
  return kind
}

/** The head of the right answer; its body is left to the caller. */
export function writeHeadOf(path: string, response: ServerResponse): void {
  const { status, bytes, length } = kindOf(path)
  response.writeHead(status, {
    'content-type': status === 200 ? 'image/png' : 'text/plain',
    ...(status === 200 && { 'cache-control': 'max-age=86400' }),
    ...(length !== false && { 'content-length': String(bytes) })
  })
}

export function answerWith(path: string, response: ServerResponse): void {
  writeHeadOf(path, response)
  response.end(bytesOf(path))
}

/** Sends the head and a part of the body, half of it or 512 KiB, and puts down how the rest is sent. */
export function holdPart(path: string, response: ServerResponse, held: Map<string, () => void>): void {
  const bytes = bytesOf(path)
  const part = Math.min(bytes.byteLength >> 1, 512 * 1024)
  writeHeadOf(path, response)
  response.write(bytes.subarray(0, part))
  held.set(path, () => response.end(bytes.subarray(part)))
}

export interface ContentOrigin extends Origin {
  /** How often each path was asked for, of those that begin with `prefix`. */
  asked(prefix: string): Record<string, number>
}

/** An origin with the right answer to every path, or with what `listener` does. Closed when the test has finished. */
export async function startContentOrigin(listener: OriginListener = (request, response) => answerWith(request.url ?? '', response)): Promise<ContentOrigin> {
  const origin = await startOrigin(listener)
  onTestFinished(() => origin.close())
  return Object.assign(origin, {
    asked(prefix: string) {
      const counts: Record<string, number> = {}
      for (const { url } of origin.requests) if (url.startsWith(prefix)) counts[url] = (counts[url] ?? 0) + 1
      return counts
    }
  })
}

/** A mixture of all kinds in which every path comes twice, the second time 20 requests after the first; only the large ones are all different. */
export function mixture(name: string): (i: number) => string {
  return (i) => {
    const slot = i % 20
    if (i % 250 === 39) return `/6m/${name}/${i}`
    const kind = slot < 11 ? '1k' : slot === 11 ? '200k' : slot === 12 ? '200k-chunked' : slot < 18 ? 'none' : 'error'
    return `/${kind}/${name}/${Math.floor(i / 40)}-${slot}`
  }
}
