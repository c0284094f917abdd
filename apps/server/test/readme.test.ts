import { readmeExamples, startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { z } from 'zod'
import { configSchema } from '../src/config/schema.ts'
import { loadConfig } from '../src/index.ts'
import { Metrics } from '../src/metrics.ts'
import { ask, startProxy, tempFile } from './helpers.ts'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => (from === '@proxy/server' ? import('../src/index.ts') : import(/* @vite-ignore */ from)))
const readme = examples.text

/** Rows of the table that follows the header `first`: cells without their backticks. */
function table(header: string): string[][] {
  const lines = readme.split('\n')
  // The formatter pads cells.
  const start = lines.findIndex((line) => line.replace(/ +/g, ' ').trim() === header)
  const rows: string[][] = []
  for (const line of lines.slice(start + 2)) {
    if (!line.startsWith('|')) break
    rows.push(
      line
        .slice(1, -1)
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim().replaceAll('`', ''))
    )
  }
  return rows
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: JsonSchema | boolean
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly oneOf?: readonly JsonSchema[]
  readonly default?: unknown
}

/** Every key that takes a value, as the table writes it, with its default. */
function leaves(schema: JsonSchema, path: string, inherited: unknown, into: Map<string, unknown>): void {
  const given = schema.default ?? inherited
  // Described as a whole: the former has the keys of the section `cache`, but for `tiers`.
  if (path === 'routes[].cache' || path === 'cache.key.query') {
    into.set(path, given)
    return
  }
  const branches = schema.anyOf ?? schema.oneOf
  if (branches !== undefined) {
    const structured = branches.filter((branch) => branch.properties !== undefined || branch.items !== undefined)
    if (structured.length === 0 || (structured.length < branches.length && (path === 'rateLimit.key' || path === 'cache.heuristic'))) into.set(path, given)
    // A list of several is also allowed where one value is: the same key.
    for (const branch of structured) if (branch.items === undefined) leaves(branch, path, undefined, into)
    if (structured.every((branch) => branch.items !== undefined)) into.set(path, given)
    return
  }
  if (schema.properties !== undefined)
    for (const [key, child] of Object.entries(schema.properties)) leaves(child, path === '' ? key : `${path}.${key}`, (given as Record<string, unknown> | undefined)?.[key], into)
  else if (typeof schema.additionalProperties === 'object') leaves(schema.additionalProperties, `${path}.*`, undefined, into)
  else if (schema.items !== undefined) leaves(schema.items, `${path}[]`, Array.isArray(given) && typeof given[0] === 'string' ? given[0] : undefined, into)
  else into.set(path, given)
}

test('the table has every key of the configuration and no other, with its default', () => {
  const expected = new Map<string, unknown>()
  leaves(z.toJSONSchema(configSchema, { io: 'input', reused: 'inline' }) as JsonSchema, '', undefined, expected)
  // Left out of the schema beside alternatives.
  expected.set('routes[].cache', true)
  const listed = new Map(table('| key | default | meaning |').map(([key, value]) => [key as string, value as string]))
  expect([...listed.keys()].sort()).toEqual([...expected.keys()].sort())
  for (const [key, value] of expected)
    expect(listed.get(key), key).toBe(value === undefined || (Array.isArray(value) && value.length === 0) ? '' : typeof value === 'string' ? value : JSON.stringify(value))
})

test('the example of a configuration is one', async () => {
  const example = /^```yaml\n(.*?)^```$/ms.exec(readme)?.[1] as string
  const config = await loadConfig(tempFile(example), { REDIS_URL: 'redis://127.0.0.1:6379', API_TOKEN: 'secret-token' })
  expect(Object.keys(config.pools)).toEqual(['images', 'api'])
  await expect(loadConfig(tempFile(example), {})).rejects.toThrow('the environment variable REDIS_URL is not set')
})

test('the example of a server in your own process runs', async () => {
  expect(examples.names).toEqual(['embedded'])
  const said = vi.spyOn(console, 'log').mockImplementation(() => {})
  onTestFinished(() => said.mockRestore())
  await examples.run('embedded')
  expect(said.mock.calls).toEqual([[expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/)]])
})

describe('what it says of', () => {
  test('the metrics', async () => {
    const names = [...(await new Metrics().render()).matchAll(/^# HELP (\S+)/gm)].map((match) => match[1] as string)
    expect(new Set(table('| metric | labels | |').map(([name]) => name))).toEqual(new Set(names))
  })

  test('the log', async () => {
    const origin = await startOrigin((_, response) => response.end('x'))
    onTestFinished(() => origin.close())
    const proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
    await ask(proxy.url)
    const said = /`"msg":"request"`: (.*?), and where/s.exec(readme)?.[1]
    expect([...(said as string).matchAll(/`(\w+)`/g)].map((match) => match[1])).toEqual(Object.keys(proxy.requests()[0] as object).filter((key) => key !== 'msg'))
  })

  test('the flags', async () => {
    const { parseArguments } = await import('../src/cli.ts')
    const flags = table('| flag | meaning |').map(([flag]) => (flag as string).replace('\\|', '|').split(' '))
    const values: Record<string, string> = { '--upstream': 'http://a,http://b', '--listen': '[::1]:8080', '--config': 'x.yaml', '--preset': 'pixiv', '--access-log': 'off' }
    expect(flags.map(([flag]) => flag)).toEqual(Object.keys(values))
    expect(parseArguments(Object.entries(values).flat(), '1.0.0')).toEqual({
      upstream: ['http://a', 'http://b'],
      listen: { host: '::1', port: 8080 },
      config: 'x.yaml',
      preset: 'pixiv',
      accessLog: false
    })
  })

  test('listening', async () => {
    const { parseListen } = await import('../src/cli.ts')
    expect(parseListen('8080')).toEqual({ host: '127.0.0.1', port: 8080 })
    expect(parseListen(':8080')).toEqual({ host: '0.0.0.0', port: 8080 })
    expect(parseListen('example.org:80')).toEqual({ host: 'example.org', port: 80 })
  })
})
