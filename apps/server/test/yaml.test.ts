import { describe, expect, test } from 'vitest'
import { parseYaml } from '../src/config/yaml.ts'

const env = { NAME: 'value', PORT: '8081', ON: 'true', ZIP: '01234', SECRET: '12345678' }
const parsed = (text: string) => parseYaml(text, 'file', env).value

describe('environment variables', () => {
  test.each([
    [`a: \${NAME}`, { a: 'value' }],
    [`a: x-\${NAME}-\${PORT}`, { a: 'x-value-8081' }],
    [`a: "\${NAME}"`, { a: 'value' }],
    [`a: [b, "\${NAME}"]`, { a: ['b', 'value'] }],
    [`a: $\${NAME}`, { a: `\${NAME}` }],
    ['a: $NAME', { a: '$NAME' }],
    [`a: |\n  \${NAME}\n`, { a: 'value\n' }]
  ])('%j', (text, expected) => expect(parsed(text)).toEqual(expected))

  test('an unquoted value that is a variable as a whole counts as what it looks like', () => {
    expect(parsed(`a: \${PORT}\nb: \${ON}\nc: \${ZIP}\nd: "\${PORT}"\ne: \${PORT}s`)).toEqual({ a: 8081, b: true, c: '01234', d: '8081', e: '8081s' })
  })

  test('a quoted secret that looks like a number stays text', () => expect(parsed(`key: "\${SECRET}"`)).toEqual({ key: '12345678' }))

  test('a key is no place for one', () => expect(parsed(`\${NAME}: 1`)).toHaveProperty([`\${NAME}`], 1))

  test('all that are not set are named', () => {
    expect(() => parsed(`a: \${X}\nb:\n  - \${Y}`)).toThrow('file:1:4: a: the environment variable X is not set\nfile:3:5: b[0]: the environment variable Y is not set')
  })
})

test('a file that grows when it is read is refused', () => {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
  for (let i = 1; i < 9; i++) lines.push(`a${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(', ')}]`)
  expect(() => parsed(lines.join('\n'))).toThrow('file: bad YAML: too many aliases')
})

test('locate follows aliases and falls back to what lies around', () => {
  const file = parseYaml('pools:\n  a: &a\n    retries: 1\n  b: *a\nroutes:\n  - pool: a\n', 'file', {})
  expect(file.locate(['pools', 'b', 'retries'], false)).toEqual({ place: 'file:3:14', depth: 3 })
  expect(file.locate(['routes', 0, 'pool'], true)).toEqual({ place: 'file:6:5', depth: 3 })
  expect(file.locate(['routes', 0, 'match', 'host'], false)).toEqual({ place: 'file:6:5', depth: 2 })
  expect(file.locate(['nothing'], false)).toEqual({ place: 'file:1:1', depth: 0 })
})

test('JSON is YAML', () => expect(parsed('{"a": {"b": [1, true, null]}}')).toEqual({ a: { b: [1, true, null] } }))
