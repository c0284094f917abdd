import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { storeConformance } from '@proxy/cache/conformance'
import { afterAll, describe, test } from 'vitest'
import { DiskStore } from '../src/index.ts'
import { MIB, patient } from './support.ts'

const parent = join(tmpdir(), `proxy-disk-${randomUUID()}`)
afterAll(() => rm(parent, { recursive: true, force: true }))

const create = (fsync: boolean) => () => new DiskStore({ ...patient, closeTimeoutMs: 500, directory: join(parent, randomUUID()), maxBytes: 64 * MIB, maxEntryBytes: 2_000_000, fsync })

storeConformance({ test, create: create(false), tooLargeBytes: 2_000_001 })
describe('flushing each file', () => storeConformance({ test, create: create(true), tooLargeBytes: 2_000_001 }))
