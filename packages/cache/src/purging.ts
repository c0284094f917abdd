/** For those who write stores and purge logs of their own. */
export { decodePurgeRecord, encodePurgeRecord } from './purge-record.ts'
export { Sweeps, type SweptEntry, type Walk } from './sweeps.ts'
