import { registerHooks } from 'node:module'

/** What the alias in vitest.base.ts does for tests, for the processes that they start: siblings' sources, so that no build is needed. */
registerHooks({
  resolve(specifier, context, next) {
    const match = /^@proxy\/([a-z0-9-]+)(?:\/([a-z0-9-]+))?$/.exec(specifier)
    if (match === null) return next(specifier, context)
    return next(new URL(`../../${match[1]}/src/${match[2] ?? 'index'}.ts`, import.meta.url).href, context)
  }
})
