import { crc32, deflateSync } from 'node:zlib'

/** A true-colour image: three bytes per pixel, rows from the top. */
export interface Pixels {
  readonly width: number
  readonly height: number
  readonly rgb: Uint8Array
}

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])

/** Encodes pixels as PNG (https://www.w3.org/TR/png-3/), without filters. */
export function encodePng({ width, height, rgb }: Pixels): Buffer {
  const rowBytes = width * 3
  const rows = Buffer.alloc((rowBytes + 1) * height)
  for (let y = 0; y < height; y++) rows.set(rgb.subarray(y * rowBytes, (y + 1) * rowBytes), y * (rowBytes + 1) + 1)
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  // 8 bits per channel, true colour; compression, filter and interlace methods are 0.
  header.set([8, 2, 0, 0, 0], 8)
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', deflateSync(rows, { level: 1 })), chunk('IEND', Buffer.alloc(0))])
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
  const framed = Buffer.alloc(body.length + 8)
  framed.writeUInt32BE(data.length, 0)
  framed.set(body, 4)
  framed.writeUInt32BE(crc32(body), body.length + 4)
  return framed
}

/** A smooth sky-like gradient with a sun in it: compresses well. */
export function gradient(width: number, height: number): Pixels {
  const rgb = new Uint8Array(width * height * 3)
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const sun = Math.max(0, 1 - Math.hypot(x - width * 0.7, y - height * 0.3) / (width * 0.25))
      rgb[at++] = Math.min(255, 40 + (160 * y) / height + 200 * sun)
      rgb[at++] = Math.min(255, 90 + (110 * y) / height + 150 * sun)
      rgb[at++] = Math.min(255, 200 - (80 * y) / height + 40 * sun)
    }
  }
  return { width, height, rgb }
}

/** Noise, the same for the same seed: does not compress, so the file is as large as the pixels. xorshift32 (Marsaglia 2003). */
export function noise(width: number, height: number, seed: number): Pixels {
  const bytes = width * height * 3
  const words = new Uint32Array(Math.ceil(bytes / 4))
  let state = seed >>> 0 || 1
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  return { width, height, rgb: new Uint8Array(words.buffer, 0, bytes) }
}
