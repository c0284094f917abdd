/** Tests that want an answer with Set-Cookie to be given to others: they pass with `setCookie: store`. */
export const cookieTests: readonly string[] = ['headers-store-Set-Cookie', 'other-set-cookie', '304-etag-update-response-Set-Cookie']

/** Tests of the suite that are not to pass, and why. Those of kind `check` ask what a cache does, without saying what it should do: they are not here. */
export const expectedFailures: Readonly<Record<string, string>> = {
  ...each(
    'RFC 9111 section 5.1: of several members of Age the first counts, and an Age that is no number of seconds is ignored. The suite wants such answers to be stale, as RFC 7234 left it open.',
    'age-parse-dup-0',
    'age-parse-dup-0-twoline',
    'age-parse-dup-old',
    'age-parse-float',
    'age-parse-negative',
    'age-parse-nonnumeric',
    'age-parse-numeric-parameter',
    'age-parse-parameter',
    'age-parse-prefix-twoline'
  ),
  ...each(
    'The stale answer is not served, as the test wants; but it tells that by a field of the origin, which is gone then, and the 502 of a proxy has none. No proxy passes it.',
    'stale-close-must-revalidate',
    'stale-close-no-cache',
    'stale-close-proxy-revalidate',
    'stale-close-s-maxage=2'
  ),
  ...each('An answer with Set-Cookie is not given to others, unless the configuration says so.', ...cookieTests),
  '304-etag-update-response-ETag': 'RFC 9111 section 4.3.4: a 304 with another strong entity tag must not update what is stored. The whole is fetched instead.',
  'conditional-lm-fresh-no-lm': 'RFC 9111 section 4.3.2: without Last-Modified the Date stands in for it, and here it lies after If-Modified-Since: there is something newer.',
  'vary-normalise-lang-select': "The choice among languages is the origin's: a list of languages that was not seen before may well have it answer in another one.",
  ...each(
    'RFC 9110 section 15.3.7: the Content-Range of these answers names six bytes and they have five, or bytes that were not asked for, and none has a strong validator by which parts could be put together.',
    'partial-store-partial-complete',
    'partial-store-partial-reuse-partial',
    'partial-store-partial-reuse-partial-absent',
    'partial-store-partial-reuse-partial-byterange',
    'partial-store-partial-reuse-partial-suffix'
  ),
  ...each(
    'Surrogate-Control is a draft of its time, and has no standing beside CDN-Cache-Control (RFC 9213).',
    'surrogate-fresh-cc-nostore',
    'surrogate-max-age',
    'surrogate-max-age-0-expires',
    'surrogate-max-age-case-insensitive',
    'surrogate-max-age-cc-max-age-invalid-expires',
    'surrogate-max-age-expires',
    'surrogate-max-age-extension',
    'surrogate-max-age-long-cc-max-age',
    'surrogate-max-age-max',
    'surrogate-max-age-max-plus',
    'surrogate-max-age-me-target',
    'surrogate-max-age-short-cc-max-age',
    'surrogate-no-store-cc-fresh'
  )
}

function each(reason: string, ...ids: string[]): Record<string, string> {
  return Object.fromEntries(ids.map((id) => [id, reason]))
}
