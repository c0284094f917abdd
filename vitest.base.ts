import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const packages = fileURLToPath(new URL('./packages/', import.meta.url))

/**
 * Tests import the sources of sibling packages, so a change is seen without a build:
 * `@proxy/cache` is packages/cache/src/index.ts and `@proxy/cache/conformance` is packages/cache/src/conformance.ts.
 * The packed packages are tested by scripts/test/packed.test.ts.
 */
export const tests = (overrides: { include?: string[]; testTimeout?: number } = {}) =>
  defineConfig({
    resolve: {
      alias: [
        { find: /^@proxy\/([a-z0-9-]+)$/, replacement: `${packages}$1/src/index.ts` },
        { find: /^@proxy\/([a-z0-9-]+)\/([a-z0-9-]+)$/, replacement: `${packages}$1/src/$2.ts` }
      ]
    },
    test: {
      include: overrides.include ?? ['test/**/*.test.ts'],
      testTimeout: overrides.testTimeout ?? 30_000,
      hookTimeout: 60_000,
      teardownTimeout: 20_000,
      maxWorkers: 2,
      dangerouslyIgnoreUnhandledErrors: false,
      reporters: ['default', ['json', { outputFile: '.report/vitest.json' }]]
    }
  })
