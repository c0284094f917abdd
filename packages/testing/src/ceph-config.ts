import { join } from 'node:path'
import type { ServiceBinaries } from './service-binaries.ts'

export interface CephOptions {
  /** Folder of everything the cluster writes. */
  dir: string
  /** UUID of the cluster. */
  fsid: string
  monitorPort: number
  gatewayPort: number
}

/**
 * ceph.conf of a cluster of one: a monitor, one object store in memory, one S3 gateway, nobody else in it, nothing kept.
 * Without authentication between its processes the monitor connections have to be told not to insist on encryption (`ms mon client mode`):
 * the gateway prefers it and waits for ever otherwise.
 */
export function cephConfig({ dir, fsid, monitorPort, gatewayPort }: CephOptions, binaries: ServiceBinaries): string {
  const settings: Record<string, string | number> = {
    fsid,
    'mon host': `[v2:127.0.0.1:${monitorPort}]`,
    'public addr': '127.0.0.1',
    'ms bind msgr1': 'false',
    // the object store takes free ones of these; freePort() gives out none of them
    'ms bind port min': 19_000,
    'ms bind port max': 19_999,
    // a port that is taken is reported, not waited for
    'ms bind retry count': 1,
    'auth cluster required': 'none',
    'auth service required': 'none',
    'auth client required': 'none',
    'auth supported': 'none',
    'ms mon client mode': 'crc',
    'ms cluster mode': 'crc',
    'ms service mode': 'crc',
    'ms client mode': 'crc',
    'run dir': dir,
    'admin socket': '',
    'log file': join(dir, '$name.log'),
    'mon data': join(dir, 'mon'),
    'mon cluster log file': '/dev/null',
    // a machine whose disk is nearly full can still run tests
    'mon data avail crit': 1,
    'mon tick interval': 1,
    'mon allow pool size one': 'true',
    // a change of the cluster's state takes effect at once: there is nobody to wait for
    'paxos propose interval': 0.005,
    'paxos min wait': 0.005,
    'osd data': join(dir, 'osd'),
    'osd objectstore': 'memstore',
    'memstore device bytes': 2 * 1024 ** 3,
    'osd crush chooseleaf type': 0,
    'osd pool default size': 1,
    'osd pool default min size': 1,
    'osd pool default pg num': 1,
    'osd pool default pgp num': 1,
    'osd pool default pg autoscale mode': 'off',
    'osd erasure code plugins': '',
    'rgw data': join(dir, 'rgw'),
    'rgw frontends': `beast endpoint=127.0.0.1:${gatewayPort}`,
    'rgw enable ops log': 'false',
    'rgw enable usage log': 'false',
    // background work of long-lived clusters, and the objects it needs
    'rgw enable gc threads': 'false',
    'rgw enable lc threads': 'false',
    'rgw enable quota threads': 'false',
    'rgw run sync thread': 'false',
    'rgw dynamic resharding': 'false',
    'rgw gc max objs': 1,
    'rgw lc max objs': 1,
    'rgw usage max shards': 1,
    'rgw data log num shards': 1,
    'rgw md log max shards': 1,
    'rgw reshard num logs': 1
  }
  if (binaries.root) {
    settings['osd class dir'] = join(binaries.libDir, 'rados-classes')
    settings['plugin dir'] = join(binaries.libDir, 'ceph')
    settings['erasure code dir'] = join(binaries.libDir, 'ceph', 'erasure-code')
  }
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`)
  return ['[global]', ...lines, ''].join('\n')
}
