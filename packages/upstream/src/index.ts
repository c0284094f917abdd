export type { RequestHeaderRules } from './request-headers.ts'
export { type UpstreamHandler, type UpstreamOptions, type UpstreamTlsOptions, upstream } from './upstream.ts'
