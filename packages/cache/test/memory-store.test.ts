import { describe, test } from 'vitest'
import { storeConformance } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'

describe('MemoryStore conformance', () => {
  storeConformance({ test, create: () => new MemoryStore({ maxBytes: 16 << 20, maxEntryBytes: 2 << 20 }), tooLargeBytes: (2 << 20) + 1 })
})
