/**
 * Compare-and-set on one key. In each, the first command that writes is the one that Redis may refuse for want of memory: once a script has written,
 * Redis lets it finish, above its limit if need be. They are sent with EVAL: their text is shorter than the bookkeeping of EVALSHA is worth.
 */

/** KEYS[1], version, metadata, checksum, expiry in ms since 1970. 1 when the version was the one stored. */
export const TOUCH = `if redis.call('HGET', KEYS[1], 'v') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'm', ARGV[2], 'c', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], ARGV[4])
return 1`

/** KEYS[1], version. The number of entries removed. */
export const DELETE_VERSION = `if redis.call('HGET', KEYS[1], 'v') ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])`
