import { storeConformance } from '@proxy/cache/conformance'
import { test } from 'vitest'
import { createStore, service } from './support.ts'

const at = await service()

storeConformance({ test, create: () => createStore(at, { maxEntryBytes: 2_000_000 }), tooLargeBytes: 2_000_001 })
