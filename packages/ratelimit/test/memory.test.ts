import { describe, test } from 'vitest'
import { limiterConformance } from '../src/conformance.ts'
import { slidingWindow, tokenBucket } from '../src/index.ts'

limiterConformance('memory', (settings, clock) => (settings.algorithm === 'token-bucket' ? tokenBucket({ ...settings, clock }) : slidingWindow({ ...settings, clock })), { describe, test })
