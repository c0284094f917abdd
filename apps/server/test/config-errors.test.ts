import { describe, expect, test } from 'vitest'
import { ConfigError, loadConfig, resolveConfig } from '../src/index.ts'
import { tempFile, tempFolder } from './helpers.ts'

const pool = 'pools: { web: { targets: ["http://127.0.0.1:9"] } }\n'

/** Each: what is wrong, the file, and what the message says after the file's name. */
const table: [what: string, yaml: string, message: string][] = [
  ['an unknown key', `${pool}routs: []\n`, '2:1: routs: unknown key; did you mean "routes"?'],
  ['an unknown key in a list', `${pool}routes:\n  - pool: web\n    cach: true\n`, '4:5: routes[0].cach: unknown key; did you mean "cache"?'],
  ['an unknown key of a pool', 'pools:\n  web:\n    targets: ["http://h"]\n    timeout: {}\n', '4:5: pools.web.timeout: unknown key; did you mean "timeouts"?'],
  ['an unknown key of a target', 'pools:\n  web:\n    targets:\n      - { url: "http://h", wieght: 2 }\n', '4:28: pools.web.targets[0].wieght: unknown key; did you mean "weight"?'],
  ['a key that resembles none', `${pool}zzz: 1\n`, '2:1: zzz: unknown key'],
  ['no pools', 'listeners: [{ port: 1 }]\n', '1:1: pools: is missing: a mapping is wanted'],
  ['an empty file', '', '1:1: pools: is missing: a mapping is wanted'],
  ['only a comment', '# later\n', '1:1: pools: is missing: a mapping is wanted'],
  ['a list at the top', '- a\n', '1:1: must be a mapping, not a list'],
  ['a text at the top', 'pools\n', '1:1: must be a mapping, not text'],
  ['an empty mapping of pools', 'pools: {}\n', '1:1: pools: needs at least one pool'],
  ['no targets', 'pools:\n  web: { targets: [] }\n', '2:10: pools.web.targets: needs at least 1 entry'],
  ['a target that is no URL', 'pools:\n  web:\n    targets: [localhost]\n', '3:15: pools.web.targets[0]: is a URL such as http://10.0.0.7:8080 or https://images.example.org, not "localhost"'],
  ['a target of another scheme', 'pools:\n  web:\n    targets: ["ftp://h"]\n', '3:15: pools.web.targets[0]: is a URL such as'],
  ['a target with a path', 'pools:\n  web:\n    targets: ["http://h/base"]\n', '3:15: pools.web.targets[0]: must end after the host and port: http://h instead of http://h/base'],
  ['a target with a password', 'pools:\n  web:\n    targets: ["http://me:hunter2@h"]\n', '3:15: pools.web.targets[0]: must not hold a user or password'],
  ['a target listed twice', 'pools:\n  web:\n    targets: ["http://h", "http://h:80"]\n', '3:5: pools.web.targets: the target http://h is listed twice'],
  ['a weight of nothing', 'pools:\n  web:\n    targets: [{ url: "http://h", weight: 0 }]\n', '3:42: pools.web.targets[0].weight: must be above 0'],
  ['a number as text', `${pool}listeners:\n  - port: eighty\n`, '3:11: listeners[0].port: must be a number, not text'],
  ['a port out of range', `${pool}listeners:\n  - port: 65536\n`, '3:11: listeners[0].port: must be at most 65535'],
  ['a port with a fraction', `${pool}listeners:\n  - port: 80.5\n`, '3:11: listeners[0].port: must be a whole number, not a fraction'],
  ['text where a mapping belongs', `${pool}admin: yes please\n`, '2:8: admin: must be a mapping, not text'],
  ['a number where true or false belongs', `${pool}observability:\n  accessLog: 1\n`, '3:14: observability.accessLog: must be true or false, not a number'],
  ['a level that is none', `${pool}observability:\n  logLevel: loud\n`, '3:13: observability.logLevel: must be "trace", "debug", "info", "warn", "error", "fatal" or "silent"'],
  ['a duration without a unit', `${pool}shutdownGrace: 30\n`, '2:16: shutdownGrace: is a duration: a number with a unit, such as "30s", "250ms", "1h30m" or "7d"; 30 has no unit'],
  ['a duration with a wrong unit', `${pool}shutdownGrace: 5 parsecs\n`, '2:16: shutdownGrace: is a duration: a number with a unit, such as "30s", "250ms", "1h30m" or "7d", not "5 parsecs"'],
  ['a timer longer than a timer can be', `${pool}shutdownGrace: 25d\n`, '2:16: shutdownGrace: must be at most 24d'],
  ['a timer of nothing', `${pool}shutdownGrace: 0s\n`, '2:16: shutdownGrace: must be at least 1ms'],
  [
    'a size without a unit',
    `${pool}stores:\n  memory: { maxSize: 1000000 }\n`,
    '3:22: stores.memory.maxSize: is a size: a number with a unit, such as "64KB", "1.5GiB" or "512B"; 1000000 has no unit'
  ],
  ['a size that is too small', `${pool}listeners: [{ maxHeaderSize: 10B }]\n`, '2:30: listeners[0].maxHeaderSize: must be at least 1024 bytes'],
  ['a host that is none', `${pool}listeners: [{ host: "a b" }]\n`, '2:21: listeners[0].host: is no address or host name'],
  ['a misspelt pool', `${pool}routes: [{ pool: wbe }]\n`, '2:18: routes[0].pool: there is no pool "wbe"; did you mean "web"?'],
  ['an unknown pool', `${pool}routes: [{ pool: images }]\n`, '2:18: routes[0].pool: there is no pool "images"; pools are web'],
  ['a path that is none', `${pool}routes: [{ pool: web, match: { path: api } }]\n`, '2:38: routes[0].match.path: is a path and begins with "/"'],
  ['a path with a wildcard', `${pool}routes: [{ pool: web, match: { path: /api/* } }]\n`, '2:38: routes[0].match.path: is a plain path prefix'],
  ['a host with a port', `${pool}routes: [{ pool: web, match: { host: "a:80" } }]\n`, '2:38: routes[0].match.host: is a host name without a port'],
  ['two routes alike', `${pool}routes: [{ pool: web }, { pool: web, match: { path: / } }]\n`, '2:38: routes[1].match: is the same as that of routes[0]'],
  ['a route below the reserved prefix', `${pool}routes: [{ pool: web, match: { path: /_proxy/x } }]\n`, "2:38: routes[0].match.path: lies below /_proxy, which is the server's own (admin.prefix)"],
  ['two pools and no routes', 'pools: { a: { targets: ["http://a"] }, b: { targets: ["http://b"] } }\n', '1:1: routes: is missing: with more than one pool'],
  ['auth that is not configured', `${pool}routes: [{ pool: web, auth: true }]\n`, '2:29: routes[0].auth: nobody could be let in: the section auth is missing'],
  ['auth without a way in', `${pool}auth: { realm: x }\n`, '2:1: auth: needs bearer, basic or apiKey: nobody could be let in'],
  ['a token that cannot be sent', `${pool}auth: { bearer: { tokens: ["with space"] } }\n`, '2:28: auth.bearer.tokens[0]: must be token68'],
  ['a token listed twice', `${pool}auth: { bearer: { tokens: [abcdef, { secret: abcdef, name: x }] } }\n`, '2:36: auth.bearer.tokens[1]: is the same as entry 0: a secret is listed twice'],
  ['a limit that is not configured', `${pool}routes: [{ pool: web, rateLimit: true }]\n`, '2:34: routes[0].rateLimit: there is no limit: the section rateLimit is missing'],
  ['a limit of no algorithm', `${pool}rateLimit: { rate: 1, burst: 1 }\n`, '2:1: rateLimit.algorithm: is missing: "token-bucket" or "sliding-window" is wanted'],
  ['a limit of an unknown algorithm', `${pool}rateLimit: { algorithm: foo }\n`, '2:25: rateLimit.algorithm: must be "token-bucket" or "sliding-window"'],
  ['a limit of two algorithms', `${pool}rateLimit: { algorithm: sliding-window, limit: 1, window: 1s, burst: 1 }\n`, '2:63: rateLimit.burst: unknown key'],
  [
    'a limit in a store that is not configured',
    `${pool}rateLimit: { algorithm: token-bucket, rate: 1, burst: 1, store: redis }\n`,
    '2:65: rateLimit.store: the store "redis" is not configured: stores.redis is missing'
  ],
  ['a tier that is not configured', `${pool}cache: { tiers: [memory, s3] }\n`, '2:26: cache.tiers[1]: the store "s3" is not configured: stores.s3 is missing'],
  ['a tier that does not exist', `${pool}cache: { tiers: [tape] }\n`, '2:18: cache.tiers[0]: must be "memory", "disk", "redis" or "s3"'],
  ['a tier listed twice', `${pool}cache: { tiers: [memory, { store: memory }] }\n`, '2:26: cache.tiers[1]: the store "memory" is listed twice'],
  ['a negative lifetime for no status', `${pool}cache: { negative: { notfound: 1m } }\n`, '2:22: cache.negative.notfound: "connectError", a status such as 404 or a class such as "5xx" is wanted'],
  ['a media type that is none', `${pool}cache: { rules: [{ contentType: images, ttl: 1d }] }\n`, '2:33: cache.rules[0].contentType: is a media type'],
  ['a trusted proxy that is none', `${pool}trustedProxies: [10.0.0.0/8, example.org]\n`, '2:30: trustedProxies[1]: "example.org" is no IP address or CIDR block'],
  ['an admin prefix with a slash at its end', `${pool}admin: { prefix: /_proxy/ }\n`, '2:18: admin.prefix: is a path such as "/_proxy"'],
  ['a field name that is none', `${pool}routes: [{ pool: web, requestHeaders: { remove: ["x y"] } }]\n`, '2:50: routes[0].requestHeaders.remove[0]: is no name of a header field'],
  ['a field value that cannot be sent', `${pool}routes: [{ pool: web, requestHeaders: { set: { x: "a\\nb" } } }]\n`, '2:51: routes[0].requestHeaders.set.x: is no value of a header field'],
  ['a field of the connection', `${pool}routes: [{ pool: web, responseHeaders: { set: { Connection: close } } }]\n`, '2:49: routes[0].responseHeaders.set.Connection: is written by the server itself'],
  // `content-length` made every answer a 502.
  ['a cache status in a field of the body', `${pool}observability: { cacheStatusHeader: Content-Length }\n`, '2:37: observability.cacheStatusHeader: is written by the server itself'],
  ['a cache status in a field of the connection', `${pool}observability: { cacheStatusHeader: Connection }\n`, '2:37: observability.cacheStatusHeader: is written by the server itself'],
  // These named the section, spoke the validator's language, took two lines, or were accepted and then broke something or did nothing.
  ['a user with a colon', `${pool}auth: { basic: { users: { "a:b": secret } } }\n`, '2:34: auth.basic.users["a:b"]: the name must not hold a colon'],
  ['a key listed twice', `${pool}auth: { apiKey: { keys: [abcdef, abcdef] } }\n`, '2:34: auth.apiKey.keys[1]: is the same as entry 0'],
  ['a number that is none', `${pool}listeners: [{ port: .nan }]\n`, '2:21: listeners[0].port: must be a finite number'],
  ['an empty target', 'pools: { web: { targets: [""] } }\n', '1:27: pools.web.targets[0]: must not be empty'],
  ['an S3 endpoint with an impossible port', `${pool}stores: { s3: { bucket: b, endpoint: "http://x:99999" } }\n`, '2:38: stores.s3.endpoint: is a URL such as'],
  ['a Redis URL that is none, unused', `${pool}stores: { redis: { url: garbage } }\n`, '2:25: stores.redis.url: not a Redis URL'],
  ['a Host that is none', 'pools: { web: { targets: ["http://h"], requestHeaders: { set: { host: "a b" } } } }\n', '1:71: pools.web.requestHeaders.set.host: is a host with an optional port'],
  ['a Host on a route', `${pool}routes: [{ pool: web, requestHeaders: { set: { host: a } } }]\n`, '2:54: routes[0].requestHeaders.set.host: has no effect on a route'],
  ['a status that is called __proto__', `${pool}cache: { negative: { __proto__: 1s } }\n`, '2:22: cache.negative.__proto__: unknown key'],
  ['a field that is called __proto__', `${pool}routes: [{ pool: web, requestHeaders: { set: { __proto__: x } } }]\n`, '2:48: routes[0].requestHeaders.set.__proto__: unknown key'],
  ['a realm that cannot be sent', `${pool}auth: { realm: "Bühne", bearer: { tokens: [abcdef] } }\n`, '2:1: auth: realm must be printable ASCII'],
  ['a rate out of all proportion', `${pool}rateLimit: { algorithm: token-bucket, rate: 0.000000001, per: 24d, burst: 1000000 }\n`, '2:1: rateLimit: the time to refill must be above 0'],
  ['text that looks like a number', `${pool}admin: { key: 12345678 }\n`, '2:15: admin.key: must be text: put it in quotes'],
  ['a key without a value', `${pool}admin:\n  key:\n`, '3:3: admin.key: must be text, not nothing'],
  ['bad YAML', 'pools: [\n', '2:1: bad YAML: '],
  ['an alias of nothing', `${pool}admin: *none\n`, '2:8: admin: there is no anchor of this name'],
  ['a key twice', 'pools: {}\npools: {}\n', '2:1: bad YAML: Map keys must be unique'],
  ['a variable that is not set', `${pool}admin:\n  key: \${NO_SUCH_VARIABLE}\n`, '3:8: admin.key: the environment variable NO_SUCH_VARIABLE is not set'],
  ['a variable without an end', `${pool}admin:\n  key: "\${OPEN"\n`, '3:8: admin.key: a dollar sign and an opening brace are not followed by']
]

describe('loadConfig names the file, line, column and key of', () => {
  test.each(table)('%s', async (_, yaml, message) => {
    const file = tempFile(yaml)
    const error = await loadConfig(file, {}).then(
      () => undefined,
      (thrown: unknown) => thrown
    )
    expect(error).toBeInstanceOf(ConfigError)
    const { message: text } = error as ConfigError
    expect(text.split('\n')).toHaveLength(1)
    expect(text.slice(0, file.length + 1 + message.length)).toBe(`${file}:${message}`)
  })

  test('everything that is wrong, a line each', async () => {
    const file = tempFile(`${pool}routs: []\nlisteners: [{ port: -1 }]\n`)
    await expect(loadConfig(file, {})).rejects.toThrow(`${file}:3:21: listeners[0].port: must be at least 0\n${file}:2:1: routs: unknown key; did you mean "routes"?`)
  })
})

test('a file that cannot be read is named with the reason', async () => {
  const folder = tempFolder()
  await expect(loadConfig(`${folder}/none.yaml`, {})).rejects.toThrow(`${folder}/none.yaml: cannot be read: there is no such file`)
  await expect(loadConfig(folder, {})).rejects.toThrow(`${folder}: cannot be read: it is a folder`)
})

test('no message repeats a secret', async () => {
  const secret = 'hunter2-hunter2'
  const files = [
    `${pool}admin: { key: "${secret}\\n" }\n`,
    `${pool}auth: { bearer: { tokens: ["${secret} x"] } }\n`,
    `${pool}auth: { bearer: { tokens: [{ secret: "${secret}", nam: x }] } }\n`,
    `${pool}auth: { basic: { users: { "a:b": "${secret}" } } }\n`,
    `pools: { web: { targets: ["http://u:${secret}@h"] } }\n`,
    `pools: { web: { targets: ["ftp://u:${secret}@h"] } }\n`,
    // One with a slash, or without the two before the user, was printed.
    `pools: { web: { targets: ["http://u:pa/${secret}@h"] } }\n`,
    `pools: { web: { targets: ["http://u:pa@/${secret}@h:x"] } }\n`,
    `pools: { web: { targets: ["http:u:${secret}@x y"] } }\n`,
    `pools: { web: { targets: ["http://h/u:${secret}@x"] } }\n`,
    `pools: { web: { targets: ["http://u:12/${secret}@h"] } }\n`,
    `pools: { web: { targets: ["http://h/?u:${secret}@x"] } }\n`,
    `${pool}stores: { redis: { url: ["${secret}"] } }\n`,
    `${pool}admin: { key: "${secret}" "${secret}" }\n`,
    `${pool}admin: { key: *${secret} }\n`
  ]
  for (const yaml of files) {
    const error = await loadConfig(tempFile(yaml), {}).then(
      () => undefined,
      (thrown: unknown) => thrown
    )
    expect(error, yaml).toBeInstanceOf(ConfigError)
    expect((error as Error).message).not.toContain(secret)
  }
})

test('resolveConfig, without a file, names the key', () => {
  expect(() => resolveConfig({ pools: { web: { targets: ['http://h'], retries: 1.5 } } })).toThrow('configuration: pools.web.retries: must be a whole number, not a fraction')
})
