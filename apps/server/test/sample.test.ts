import { once } from 'node:events'
import { mkdtempSync, readFileSync, statSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32, inflateSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { sampleImages } from '../src/sample/images.ts'
import { encodePng, noise } from '../src/sample/png.ts'
import { ask, listeningUrl, runCli, tempFolder } from './helpers.ts'

/** The pixels of a PNG that `encodePng` made, every checksum verified. */
function decodePng(file: Buffer): { width: number; height: number; rgb: Buffer } {
  expect(file.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n')
  const chunks = new Map<string, Buffer>()
  for (let at = 8; at < file.length; ) {
    const length = file.readUInt32BE(at)
    const body = file.subarray(at + 4, at + 8 + length)
    expect(file.readUInt32BE(at + 8 + length)).toBe(crc32(body))
    chunks.set(body.toString('latin1', 0, 4), body.subarray(4))
    at += length + 12
  }
  expect([...chunks.keys()]).toEqual(['IHDR', 'IDAT', 'IEND'])
  const header = chunks.get('IHDR') as Buffer
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)]
  expect([...header.subarray(8)]).toEqual([8, 2, 0, 0, 0])
  const rows = inflateSync(chunks.get('IDAT') as Buffer)
  const rgb = Buffer.alloc(width * height * 3)
  for (let y = 0; y < height; y++) {
    expect(rows[y * (width * 3 + 1)]).toBe(0)
    rows.copy(rgb, y * width * 3, y * (width * 3 + 1) + 1, (y + 1) * (width * 3 + 1))
  }
  return { width, height, rgb }
}

describe('the images', () => {
  test('are PNG files that hold the pixels that were drawn', () => {
    const pixels = noise(31, 17, 7)
    const decoded = decodePng(encodePng(pixels))
    expect([decoded.width, decoded.height]).toEqual([31, 17])
    expect(decoded.rgb.equals(pixels.rgb)).toBe(true)
  })

  test('are the same at every start, made once, and one has 10 MB', async () => {
    const [first, second] = [tempFolder(), tempFolder()]
    await sampleImages(first)
    await sampleImages(second)
    for (const name of ['small.png', 'sky.png', 'large.png']) expect(readFileSync(join(first, name)).equals(readFileSync(join(second, name))), name).toBe(true)
    expect(statSync(join(first, 'large.png')).size).toBeGreaterThanOrEqual(10 * 1024 * 1024)
    const { mtimeMs, ino } = statSync(join(first, 'large.png'))
    await sampleImages(first)
    expect(statSync(join(first, 'large.png'))).toMatchObject({ mtimeMs, ino })
  })
})

test('started alone: a MISS, a HIT, the metrics, and hits while the origin is away', async () => {
  const temp = mkdtempSync(join(tmpdir(), 'proxy-sample-test-'))
  const cli = runCli(['--listen', '127.0.0.1:0'], { TMPDIR: temp })
  const url = await listeningUrl(cli)
  await cli.waitFor(/Your own origin instead/)
  expect(cli.stdout()).toContain(`The proxy listens on ${url}, in front of a sample origin on http://127.0.0.1:`)
  const origin = /sample origin on (http:\S+?)\. Try/.exec(cli.stdout())?.[1] as string

  for (const path of ['/images/sky.png', '/images/large.png']) {
    const miss = await ask(url + path)
    expect(miss).toMatchObject({ status: 200, headers: { 'content-type': 'image/png' } })
    expect(miss.headers['cache-status']).toContain('fwd=uri-miss; stored')
    decodePng(miss.body)
    const hit = await ask(url + path)
    expect(hit.headers['cache-status']).toContain('hit')
    expect(hit.body.equals(miss.body)).toBe(true)
  }
  const slowStartMs = performance.now()
  expect((await ask(`${url}/api/slow`)).status).toBe(200)
  expect(performance.now() - slowStartMs).toBeGreaterThan(1900)
  expect((await ask(`${url}/api/slow`)).headers['cache-status']).toContain('hit')
  expect(JSON.parse((await ask(`${url}/api/time`)).text)).toEqual({ time: expect.any(String) })
  expect((await ask(`${url}/nothing`)).status).toBe(404)
  expect((await ask(`${url}/_proxy/metrics`)).text).toContain('proxy_cache_results_total{result="hit"} 3')

  expect((await ask(`${origin}/stop`, { method: 'POST' })).status).toBe(200)
  expect((await ask(`${url}/images/large.png`)).body.length).toBeGreaterThan(10 * 1024 * 1024)
  expect((await ask(`${url}/images/small.png`)).status).toBe(502)
  cli.child.kill('SIGTERM')
  expect(await cli.exit).toEqual({ code: 0, signal: null })
})

const rootReadme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8')

/** What curl prints: with `-D -` the head as it came, else the body. */
async function fetchText(address: string, method: string, head: boolean): Promise<string> {
  const outgoing = request(address, { method, agent: false, headers: { connection: 'keep-alive' } }).end()
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  let body = ''
  for await (const chunk of response.setEncoding('latin1')) body += chunk
  const { statusCode, statusMessage, rawHeaders } = response
  const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`]
  for (let i = 0; i < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`)
  return head ? lines.join('\n') : body
}

/** Without what is another at each run. */
function lasting(text: string): string {
  return text
    .replace(/^(etag|last-modified|date|x-request-id|age): .*$/gm, '$1: …')
    .replace(/ttl=\d+/g, 'ttl=…')
    .replace(/127\.0\.0\.1:\d+/g, '127.0.0.1:…')
    .trim()
}

test('the README shows what a newcomer sees', async () => {
  const cli = runCli(['--listen', '127.0.0.1:0'], { TMPDIR: mkdtempSync(join(tmpdir(), 'proxy-sample-test-')) })
  const url = await listeningUrl(cli)
  await cli.waitFor(/Your own origin instead/)
  const origin = /sample origin on (http:\S+?)\. Try/.exec(cli.stdout())?.[1] as string
  const [guide, session] = ['text', 'console'].map((language) => new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'ms').exec(rootReadme)?.[1] as string)
  const squeezed = (text: string): string => lasting(text).replace(/ +/g, ' ')
  expect(squeezed(cli.stdout())).toContain(squeezed(guide as string))

  const steps = (session as string).split(/^\$ /m).slice(1)
  expect(steps).toHaveLength(6)
  for (const step of steps) {
    const command = /^curl -s( -o \/dev\/null -D -)?( -X POST)? (http:\/\/127\.0\.0\.1:(\d+)(\S+))(?: \| grep (\S+))?\n/.exec(step)
    expect(command, step).not.toBeNull()
    const [line, head, post, , port, path, pattern] = command as RegExpExecArray
    const text = await fetchText(`${port === '8080' ? url : origin}${path}`, post === undefined ? 'GET' : 'POST', head !== undefined)
    const shown = text.split('\n').filter((one) => pattern === undefined || one.includes(pattern))
    expect(lasting(shown.join('\n')), line).toBe(lasting(step.slice(line.length)))
  }
  cli.child.kill('SIGTERM')
  await cli.exit
})
