import { mkdir, readdir, rename, stat, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { encodePng, gradient, noise, type Pixels } from './png.ts'

const images: Readonly<Record<string, () => Pixels>> = {
  'small.png': () => gradient(320, 200),
  'sky.png': () => gradient(1600, 1000),
  // 2000 * 1750 pixels of three bytes: a little over 10 MB.
  'large.png': () => noise(2000, 1750, 2026)
}

/** A folder with the sample's images. They are made once, and are the same on every machine. */
export async function sampleImages(folder = join(tmpdir(), `proxy-sample-1-${userInfo().username}`)): Promise<string> {
  await mkdir(folder, { recursive: true })
  const present = new Set(await readdir(folder))
  for (const [name, draw] of Object.entries(images)) {
    if (present.has(name) && (await stat(join(folder, name))).size > 0) continue
    // Whole or not at all: another start may be making the same file.
    const unfinished = join(folder, `.${name}.${process.pid}`)
    await writeFile(unfinished, encodePng(draw()))
    await rename(unfinished, join(folder, name))
  }
  return folder
}
