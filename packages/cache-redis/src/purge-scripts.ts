/**
 * The log of purges is one sorted set, so that it works in a cluster too:
 *
 * ```
 * score 0       generation: random, new when the set is made anew (Redis was emptied)
 * score 1, 2 …  purges as text, in the order in which they were written
 * ```
 * A set holds equal members once: whoever is not sure whether a purge was written writes it again.
 */

/** KEYS[1], a generation for a set that has none, purges. Adds those that are not there, behind all others. */
export const ADD_PURGES = `if redis.call('ZCOUNT', KEYS[1], 0, 0) == 0 then redis.call('ZADD', KEYS[1], 0, ARGV[1]) end
local last = tonumber(redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
for i = 2, #ARGV do
  if redis.call('ZADD', KEYS[1], 'NX', last + 1, ARGV[i]) == 1 then last = last + 1 end
end
return last`
