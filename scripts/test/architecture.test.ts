import { globSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'

/** Who may import whom. The picture behind it is docs/architecture.md. */
const root = join(import.meta.dirname, '..', '..')

interface Manifest {
  name: string
  private?: boolean
  dependencies?: Record<string, string>
  peerDependencies?: Record<string, string>
  devDependencies?: Record<string, string>
  engines?: { node?: string }
  exports?: Record<string, unknown>
}

interface Package {
  readonly dir: string
  readonly manifest: Manifest
  /** Specifiers imported by each source file. */
  readonly imports: readonly { file: string; specifier: string }[]
}

/** `@proxy/` packages that the sources of each package may import, and outside libraries that belong to it alone. */
const mayImport: Record<string, readonly string[]> = {
  '@proxy/pipeline': [],
  '@proxy/cache': ['@proxy/pipeline'],
  '@proxy/upstream': ['@proxy/pipeline'],
  '@proxy/balancer': ['@proxy/pipeline'],
  '@proxy/ratelimit': ['@proxy/pipeline'],
  '@proxy/auth': ['@proxy/pipeline'],
  '@proxy/cache-redis': ['@proxy/pipeline', '@proxy/cache'],
  '@proxy/store-disk': ['@proxy/pipeline', '@proxy/cache'],
  '@proxy/store-s3': ['@proxy/pipeline', '@proxy/cache'],
  '@proxy/testing': [],
  '@proxy/server': ['@proxy/pipeline', '@proxy/cache', '@proxy/cache-redis', '@proxy/store-disk', '@proxy/store-s3', '@proxy/upstream', '@proxy/balancer', '@proxy/ratelimit', '@proxy/auth']
}
const owners: readonly { library: RegExp; files: RegExp }[] = [
  { library: /^hono(\/|$)/, files: /^(apps\/server\/src\/|packages\/pipeline\/src\/hono\.ts$)/ },
  { library: /^@hono\/node-server(\/|$)/, files: /^apps\/server\/src\// },
  { library: /^undici(\/|$)/, files: /^packages\/upstream\/src\// },
  { library: /^ioredis(\/|$)/, files: /^packages\/cache-redis\/src\// },
  { library: /^@(aws-sdk|smithy)\//, files: /^packages\/store-s3\/src\// },
  { library: /^(zod|yaml|pino|prom-client|commander)(\/|$)/, files: /^apps\/server\/src\// }
]

const importLine = /(?:^|\s)(?:import|export)\s[^'"]*?from\s*['"]([^'"]+)['"]|(?:^|\s)import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm

const packages: Package[] = globSync('{packages,apps}/*/package.json', { cwd: root }).map((file) => {
  const dir = dirname(file)
  const imports = globSync(`${dir}/src/**/*.ts`, { cwd: root }).flatMap((source) =>
    [...readFileSync(join(root, source), 'utf8').matchAll(importLine)].map((match) => ({ file: source, specifier: match[1] ?? match[2] ?? match[3] ?? '' }))
  )
  return { dir, manifest: JSON.parse(readFileSync(join(root, file), 'utf8')) as Manifest, imports }
})
const bare = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

test('every package has its rule', () => {
  expect(packages.map(({ manifest }) => manifest.name).sort()).toEqual(Object.keys(mayImport).sort())
})

describe.each(packages)('$manifest.name', ({ dir, manifest, imports }) => {
  test('imports only the packages it may', () => {
    const allowed = mayImport[manifest.name] ?? []
    const wrong = imports.filter(({ specifier }) => specifier.startsWith('@proxy/') && !allowed.includes(bare(specifier)))
    expect(wrong).toEqual([])
  })

  test('imports outside libraries only where they belong', () => {
    const wrong = imports.filter(({ file, specifier }) => owners.some(({ library, files }) => library.test(specifier) && !files.test(file)))
    expect(wrong).toEqual([])
  })

  test('declares what it imports, and reaches into no other package', () => {
    const declared = { ...manifest.dependencies, ...manifest.peerDependencies }
    const missing = imports.filter(({ specifier }) => !specifier.startsWith('.') && !specifier.startsWith('node:') && specifier !== manifest.name && !(bare(specifier) in declared))
    expect(missing).toEqual([])
    expect(imports.filter(({ specifier }) => specifier.startsWith('.') && specifier.split('../').length > 3)).toEqual([])
  })

  test('its manifest keeps to the same rule', () => {
    const ours = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }).filter((name) => name.startsWith('@proxy/'))
    expect(ours.filter((name) => !(mayImport[manifest.name] ?? []).includes(name))).toEqual([])
  })

  test('has the skeleton of a package', () => {
    if (manifest.private) return
    const files = new Set(globSync([`${dir}/*`, `${dir}/src/*.ts`, `${dir}/test/*.ts`], { cwd: root }).map((file) => file.slice(dir.length + 1)))
    for (const file of ['README.md', 'tsconfig.json', 'tsconfig.build.json', 'tsup.config.ts', 'vitest.config.ts', 'src/index.ts', 'test/readme.test.ts'])
      expect(files, `${dir}/${file}`).toContain(file)
    expect(manifest.engines?.node).toMatch(dir.startsWith('apps/') ? /^>=/ : /^>=22\.19$/)
  })

  test('keeps to one concept per file', () => {
    const long = globSync(`${dir}/src/**/*.ts`, { cwd: root })
      .map((file) => ({ file, lines: readFileSync(join(root, file), 'utf8').split('\n').length }))
      .filter(({ file, lines }) => lines > 400 && basename(file) !== 'conformance.ts')
    expect(long).toEqual([])
  })
})
