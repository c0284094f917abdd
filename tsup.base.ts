import { defineConfig } from 'tsup'

/** One ESM bundle per public entry point; declarations come from tsc (`tsconfig.build.json`), because tsup cannot drive the native TypeScript compiler. */
export const library = (entry: string[]) => defineConfig({ entry, format: ['esm'], target: 'node22', platform: 'node', sourcemap: true, clean: true, dts: false, treeshake: true })
