// Requests to replay, made from fixed seeds: every run sees the same ones.

/** Numbers from a seed: mulberry32. */
function randomFrom(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Ranks 0 to count - 1, the rank r as often as 1 / (r + 1) ** skew. */
function zipf(count, skew, random) {
  const sums = new Float64Array(count)
  let sum = 0
  for (let rank = 0; rank < count; rank++) sums[rank] = sum += 1 / (rank + 1) ** skew
  return () => {
    const wanted = random() * sum
    let [low, high] = [0, count - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sums[middle] < wanted) low = middle + 1
      else high = middle
    }
    return low
  }
}

const OBJECTS = 100_000
const REQUESTS = 1_000_000

function trace(name, length, next, options = {}) {
  const ids = new Int32Array(length)
  for (let i = 0; i < length; i++) ids[i] = next(i)
  return { name, ids, sizeOf: () => 1, footprint: OBJECTS, ...options }
}

function zipfTrace(skew) {
  return trace(`Zipf ${skew}`, REQUESTS, zipf(OBJECTS, skew, randomFrom(1)))
}

/** A crawl of 20 000 objects that nobody else asks for, after every 80 000 requests. */
function scanTrace() {
  const popular = zipf(OBJECTS, 0.9, randomFrom(2))
  let fresh = OBJECTS
  return trace('Zipf 0.9, a fifth of it crawls', REQUESTS, (i) => (i % 100_000 < 80_000 ? popular() : fresh++))
}

/** Round and round over so many objects. */
function loopTrace(count) {
  return trace(`loop over ${count}`, REQUESTS, (i) => i % count)
}

function loopAndZipf() {
  const random = randomFrom(3)
  const popular = zipf(OBJECTS, 0.9, random)
  let at = 0
  return trace('Zipf 0.9, a third of it a loop over 20000', REQUESTS, () => (random() < 1 / 3 ? OBJECTS + (at++ % 20_000) : popular()))
}

/** `share` of the requests are for what is never asked for again. */
function onceTrace(share) {
  const random = randomFrom(4)
  const popular = zipf(OBJECTS, 0.9, random)
  let fresh = OBJECTS
  return trace(`Zipf 0.9, ${share * 100} % asked for once`, REQUESTS, () => (random() < share ? fresh++ : popular()))
}

/** What is popular changes: every 1000 requests the next 200 objects become the most popular ones. */
function driftTrace() {
  const popular = zipf(OBJECTS, 0.9, randomFrom(5))
  return trace('Zipf 0.9, popularity drifts', REQUESTS, (i) => 1_000_000 - Math.floor(i / 1000) * 200 + popular())
}

/** News: each object is asked for a few times soon after it appeared, and hardly later. */
function burstTrace() {
  const random = randomFrom(6)
  return trace('each object popular for a while', REQUESTS, (i) => Math.floor(i / 5) - Math.floor(-Math.log(1 - random()) * 3000))
}

/** Sizes as those of images and scripts: lognormal, median 8 KiB, mean some 60 KiB, 8 MiB at most; whatever the popularity is. */
function sizeOf(id) {
  const random = randomFrom(id * 7919 + 13)
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  return Math.min(8 << 20, Math.max(200, Math.round(8192 * Math.exp(2 * normal))))
}

function sizedTrace(share) {
  const random = randomFrom(7)
  const popular = zipf(OBJECTS, 0.9, random)
  const sizes = new Map()
  let fresh = OBJECTS
  let footprint = 0
  const known = (id) => {
    let size = sizes.get(id)
    if (size === undefined) sizes.set(id, (size = sizeOf(id)))
    return size
  }
  for (let id = 0; id < OBJECTS; id++) footprint += known(id)
  const name = share === 0 ? 'Zipf 0.9, sizes differ' : `Zipf 0.9, sizes differ, ${share * 100} % asked for once`
  return trace(name, REQUESTS, () => (random() < share ? fresh++ : popular()), { sizeOf: known, footprint })
}

/** Made one after the other, so that only one is in memory. */
export const traces = [
  ...[0.6, 0.8, 1, 1.2].map((skew) => () => zipfTrace(skew)),
  scanTrace,
  () => loopTrace(12_000),
  () => loopTrace(2000),
  loopAndZipf,
  () => onceTrace(0.2),
  () => onceTrace(0.5),
  driftTrace,
  burstTrace,
  () => sizedTrace(0),
  () => sizedTrace(0.3)
]
