export type { UpstreamOptions, UpstreamTlsOptions } from './options.ts'
export type { RequestHeaderRules } from './request-headers.ts'
export { type UpstreamHandler, upstream } from './upstream.ts'
