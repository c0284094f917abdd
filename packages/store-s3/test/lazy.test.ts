import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const source = new URL('../src/index.ts', import.meta.url).href
const packages = new URL('../../', import.meta.url).href

/** Runs the package's source and notes every module that is loaded; sibling packages are taken from their sources, as in all tests. */
const script = `
import { registerHooks } from 'node:module'
const loaded = []
registerHooks({
  resolve(specifier, context, next) {
    const [, name, part = 'index'] = /^@proxy\\/([\\w-]+)(?:\\/([\\w-]+))?$/.exec(specifier) ?? []
    const result = next(name === undefined ? specifier : '${packages}' + name + '/src/' + part + '.ts', context)
    loaded.push(result.url)
    return result
  }
})
const sdk = () => loaded.filter((url) => /@aws-sdk|@smithy/.test(url)).length
const { S3Store } = await import('${source}')
const store = new S3Store({ bucket: 'b', endpoint: 'http://127.0.0.1:1', accessKeyId: 'a', secretAccessKey: 'b', firstByteTimeoutMs: 60000 })
const before = sdk()
const code = await store.get('k').catch((error) => error.code)
console.log(JSON.stringify({ modules: loaded.length, before, after: sdk(), code }))
await store.close()
`

test('importing the package and making a store does not load the AWS SDK; the first use does', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
  const { modules, before, after, code } = JSON.parse(stdout)
  expect(modules).toBeGreaterThan(10)
  expect(before).toBe(0)
  expect(after).toBeGreaterThan(0)
  expect(code).toBe('S3_UNREACHABLE')
})
