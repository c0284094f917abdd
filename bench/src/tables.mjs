// What is measured, against what, and what it shall be. The first peer of a table is the floor of its ratios.

const HIT_TARGET = 1.15
const LOG_TARGET_US = 4
const PASS_TARGET = 1.4
const FILL_TARGET = 1.15
/** Clients of a wave. */
const CROWD = 50

/** The tables for these running servers; `nginx` is a list, empty where it is not installed, and `varnish` undefined. */
export function tablesOf({ rawHit, rawPass, plain, auth, log, disk, nginx, varnish }) {
  const installed = (...peers) => peers.filter((peer) => peer !== undefined)
  const others = installed(nginx[0], varnish)
  const raw = { name: 'raw node:http', ...rawHit }
  const bare = { name: 'bare undici dispatch proxy', ...rawPass }
  const mine = (target) => [
    { name: 'server', ...plain, target },
    { name: 'server, bearer token', ...auth, target },
    { name: 'server, bearer token, request log', ...log }
  ]
  const hit = (size, path, differences) => ({ title: `memory hit, ${size}`, path, peers: [raw, ...mine(HIT_TARGET), ...installed(...nginx, varnish)], differences })
  const diskHit = (size, path) => ({ title: `disk hit, ${size}`, path, peers: [raw, { name: 'server, tier disk alone', ...disk }, ...nginx] })
  const requestLog = { name: 'the request log alone', of: 'server, bearer token, request log', from: 'server, bearer token', targetUs: LOG_TARGET_US }
  return [
    hit('1 KiB', '/hit/1k', [requestLog]),
    hit('64 KiB', '/hit/64k'),
    hit('1 MiB', '/hit/1m'),
    diskHit('1 KiB', '/hit/1k'),
    diskHit('64 KiB', '/hit/64k'),
    diskHit('1 MiB', '/hit/1m'),
    { title: `collapse, 64 KiB, ${CROWD} clients for one URL that nobody has`, path: '/slow/64k', waves: CROWD, peers: [{ name: 'server', ...plain }, ...others] },
    {
      title: 'miss with memory fill, 1 KiB, each request another URL',
      path: '/hit/1k',
      unique: true,
      peers: [
        { name: 'server, pass-through of URLs each asked once', ...plain, path: '/pass/1k' },
        { name: 'server', ...plain, target: FILL_TARGET },
        { name: 'server, bearer token', ...auth },
        { name: 'server, bearer token, request log', ...log },
        bare,
        ...others
      ]
    },
    { title: 'revalidation, 1 KiB', path: '/stale/1k', peers: [bare, ...mine()] },
    { title: 'pass-through, 1 KiB', path: '/pass/1k', peers: [bare, ...mine(PASS_TARGET), ...others] },
    { title: 'pass-through, 1 KiB, each request another URL', path: '/pass/1k', unique: true, peers: [bare, ...mine(), ...others] }
  ]
}
