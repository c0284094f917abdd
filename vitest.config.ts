import { tests } from './vitest.base.ts'

/** Tests of the repository as a whole: who imports whom, and what is packed. */
export default tests({ include: ['scripts/test/**/*.test.ts'], testTimeout: 240_000 })
