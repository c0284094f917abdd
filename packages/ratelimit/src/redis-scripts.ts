import { createHash } from 'node:crypto'

/**
 * One decision per script: Redis runs it whole, so 200 callers at once get what 200 in a row would. Times are microseconds, whole numbers below 2^53; state is
 * written only when something was taken (or the clock went back), and expires when it would say no more than a missing key does.
 */
export interface Script {
  readonly text: string
  /** SHA-1 in hex, the name under which a server caches it. */
  readonly sha: string
}

function script(text: string): Script {
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

/**
 * Time: ARGV[1] is the caller's, or -1 for the server's. A server clock that steps back must not stop a bucket until it has caught up:
 * what is dated in the future is dated anew.
 */
const NOW = `
local now = tonumber(ARGV[1])
if now < 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end
local spare = tonumber(ARGV[2])
local cost = tonumber(ARGV[3])
local limit = tonumber(ARGV[4])
local EPSILON = 1e-9`

/** State: "tokens microseconds". ARGV: now, spare ms of the expiry, cost, burst, tokens per microsecond. Reply: allowed, remaining, reset, retry (-1 never). */
export const tokenBucketScript: Script = script(`${NOW}
local rate = tonumber(ARGV[5])
local tokens, at = limit, now
local state = redis.call('GET', KEYS[1])
if state then
  local t, a = string.match(state, '^(%S+) (%S+)$')
  tokens, at = tonumber(t), tonumber(a)
  tokens = math.min(limit, tokens + math.max(0, now - at) * rate)
end
local function wait(missing)
  if missing <= EPSILON then return 0 end
  return math.ceil((missing - EPSILON) / rate)
end
local allowed = tokens >= cost - EPSILON
if allowed then tokens = tokens - cost end
local reset = wait(limit - tokens)
if (allowed and cost > 0) or now < at then
  redis.call('SET', KEYS[1], string.format('%.17g %.0f', tokens, now), 'PX', math.ceil(reset / 1000) + 1 + spare)
end
local retry = -1
if cost <= limit then retry = wait(cost - tokens) end
return { allowed and 1 or 0, math.max(0, math.floor(tokens + EPSILON)), reset, retry }`)

/**
 * State, packed: first arrival of the newest entry, then the entries, oldest first: time of the last arrival, cost; time, cost …
 * ARGV: now, spare ms of the expiry, cost, limit, window, grain. Reply as above.
 */
export const slidingWindowScript: Script = script(`${NOW}
local window = tonumber(ARGV[5])
local grain = tonumber(ARGV[6])
local first, log, used, stepped = now, {}, 0, false
local state = redis.call('GET', KEYS[1])
if state then
  local packed = cmsgpack.unpack(state)
  first = packed[1]
  if first > now then first = now end
  for i = 2, #packed, 2 do
    local at = packed[i]
    if at > now then
      at = now
      stepped = true
    end
    if at + window > now then
      log[#log + 1] = at
      log[#log + 1] = packed[i + 1]
      used = used + packed[i + 1]
    end
  end
end
local allowed = used + cost <= limit + EPSILON
local size = #log
if allowed and cost > 0 then
  used = used + cost
  if size > 0 and now - first < grain then
    log[size - 1] = now
    log[size] = log[size] + cost
  else
    log[size + 1] = now
    log[size + 2] = cost
    size = size + 2
    first = now
  end
end
local reset = 0
if size > 0 then reset = log[size - 1] + window - now end
if size > 0 and ((allowed and cost > 0) or stepped) then
  local packed = { first }
  for i = 1, size do packed[i + 1] = log[i] end
  redis.call('SET', KEYS[1], cmsgpack.pack(packed), 'PX', math.ceil(reset / 1000) + 1 + spare)
end
local retry = 0
local excess = used + cost - limit
if cost > limit then
  retry = -1
elseif excess > EPSILON then
  local i, freed = 1, log[2]
  while freed + EPSILON < excess and i + 2 < size do
    i = i + 2
    freed = freed + log[i + 1]
  end
  retry = log[i] + window - now
end
return { allowed and 1 or 0, math.max(0, math.floor(limit - used + EPSILON)), reset, retry }`)
