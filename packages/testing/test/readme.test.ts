import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runCommand } from '../src/run-command.ts'
import { createTempDir, type TempDir } from '../src/temp-dir.ts'

let temp: TempDir
beforeAll(async () => {
  temp = await createTempDir('readme-')
})
afterAll(() => temp.remove())

// By plain Node and not by vitest: the sources have to run under both.
test('the examples of the README run', async () => {
  const readme = await readFile(join(import.meta.dirname, '..', 'README.md'), 'utf8')
  const examples = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code = '']) => code)
  expect(examples).toHaveLength(1)
  const index = pathToFileURL(join(import.meta.dirname, '..', 'src', 'index.ts')).href
  for (const [number, code] of examples.entries()) {
    const file = join(temp.path, `example-${number}.mts`)
    await writeFile(file, code.replaceAll(`'@proxy/testing'`, `'${index}'`))
    await runCommand(process.execPath, [file])
  }
})
