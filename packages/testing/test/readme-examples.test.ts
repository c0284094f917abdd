import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { type ReadmeExamples, readmeExamples } from '../src/readme-examples.ts'
import { createTempDir } from '../src/temp-dir.ts'

const modules = new Map<string, unknown>([
  ['numbers', { one: 1, two: 2 }],
  ['greet', { default: (name: string) => `hello ${name}` }]
])

async function load(from: string): Promise<unknown> {
  if (!modules.has(from)) throw new Error(`no module ${from}`)
  return modules.get(from)
}

/** Examples of a README with these blocks, each with what stands behind its fence. */
async function examplesOf(...blocks: [info: string, code: string][]): Promise<ReadmeExamples> {
  const folder = await createTempDir('readme-examples-')
  onTestFinished(() => folder.remove())
  const file = join(folder.path, 'README.md')
  writeFileSync(file, `# Title\n\n${blocks.map(([info, code]) => `Text.\n\n\`\`\`${info}\n${code}\n\`\`\`\n`).join('\n')}`)
  return readmeExamples(pathToFileURL(file), load)
}

test('lists the examples, and no code in another language', async () => {
  const examples = await examplesOf(['sh', 'npm install'], ['ts example=alone', 'const a: number = 1'], ['yaml', 'a: 1'], ['ts example=in-hono', 'const b = 2'])
  expect(examples.names).toEqual(['alone', 'in-hono'])
  expect(examples.code('alone')).toBe('const a: number = 1\n')
  expect(examples.text).toContain('# Title\n\nText.')
})

test('runs an example with the modules given to it, without its types, and gives back what was asked for', async () => {
  const code = `import greet from 'greet'
import { one, type Three, two as second } from 'numbers'
import type { Four } from 'types'
import {
  two
} from 'numbers'

export const sum: number = await Promise.resolve(one + second + two)
const text = greet('you' satisfies string)`
  const examples = await examplesOf(['ts example=alone', code])
  expect(await examples.run('alone', ['sum', 'text'])).toEqual({ sum: 5, text: 'hello you' })
  expect(await examples.run('alone')).toEqual({})
})

test('makes replacements, wherever they apply', async () => {
  const examples = await examplesOf(['ts example=alone', "const urls = ['http://a:80/x', 'http://a:80/y']"])
  expect(await examples.run('alone', ['urls'], { 'http://a:80': 'http://$&:1' })).toEqual({ urls: ['http://$&:1/x', 'http://$&:1/y'] })
  await expect(examples.run('alone', [], { 'http://b:80': '' })).rejects.toThrow('the example alone has no http://b:80 to be replaced')
})

test('rejects with what the example throws, and where it cannot be run', async () => {
  const examples = await examplesOf(['ts example=throws', "throw new RangeError('no')"], ['ts example=stranger', "import { a } from 'elsewhere'"], ['ts example=odd', "import * as a from 'numbers'"])
  await expect(examples.run('throws')).rejects.toThrow(RangeError)
  await expect(examples.run('stranger')).rejects.toThrow('no module elsewhere')
  await expect(examples.run('odd')).rejects.toThrow(SyntaxError)
  await expect(examples.run('missing')).rejects.toThrow('has no example missing')
})

test.each([
  ['without a name', ['ts', 'ts example=alone']],
  ['spelt in another way', ['typescript']],
  ['with the name of another', ['ts example=alone', 'ts example=alone']],
  ['with something else', ['ts alone']]
])('refuses a README with code that would not be run: %s', async (_, infos) => {
  await expect(examplesOf(...infos.map((info): [string, string] => [info, 'const a = 1']))).rejects.toThrow('has code that is no example of its own: ```t')
})
