/** What a proxy does with the connections through it. */
export type FaultMode =
  /** Passes everything. */
  | { readonly kind: 'pass' }
  /** Nobody listens: new connections are refused, open ones reset. */
  | { readonly kind: 'refuse' }
  /** Connections are accepted and stay open, nothing passes. What was sent meanwhile passes when the mode changes. */
  | { readonly kind: 'freeze' }
  /** What the service answers arrives `ms` later, in order. Requests pass at once. */
  | { readonly kind: 'delay'; readonly ms: number }
  /** `bytes` bytes towards the client, counted from here on for an open connection, then a reset; 0 cuts when the first one would pass. */
  | { readonly kind: 'cutAfter'; readonly bytes: number }
  /** Open connections are reset, new ones as soon as they are accepted. */
  | { readonly kind: 'reset' }
