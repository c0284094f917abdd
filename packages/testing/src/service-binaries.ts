import { constants } from 'node:fs'
import { access, readdir } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { unpackPackages } from './debian-packages.ts'
import { runCommand } from './run-command.ts'

/** Where the programs of a service are. */
export interface ServiceBinaries {
  /** What to run for the program `name`. */
  command(name: string): string
  /** What its environment needs. */
  readonly env: NodeJS.ProcessEnv
  /** The folder that stands for / in the paths of the service's own files: empty where it is installed. */
  readonly root: string
  /** The folder of shared libraries, as `/usr/lib/x86_64-linux-gnu`, below `root`. */
  readonly libDir: string
}

interface Service {
  /** Folder below .tools/services. */
  folder: string
  /** The first one is run with --version to see whether the set works. */
  programs: readonly string[]
  packages: readonly string[]
  /** Ends the sentence "install ... or set ...". */
  variables: string
}

const redis: Service = { folder: 'redis', programs: ['redis-server'], packages: ['redis-server'], variables: 'REDIS_URL' }
const ceph: Service = {
  folder: 'ceph',
  programs: ['radosgw', 'radosgw-admin', 'ceph-mon', 'ceph-osd', 'monmaptool', 'osdmaptool'],
  packages: ['radosgw', 'ceph-mon', 'ceph-osd', 'ceph-common'],
  variables: 'S3_ENDPOINT with S3_ACCESS_KEY and S3_SECRET_KEY'
}

const servicesDir = join(import.meta.dirname, '..', '..', '..', '.tools', 'services')

/** redis-server: from PATH, else unpacked from Debian packages into .tools/services (once, 2 s). Rejects where neither is possible. */
export const redisBinaries = (): Promise<ServiceBinaries> => found(redis)
/** The programs of a one-node Ceph with radosgw, found as `redisBinaries` does (unpacked once: 5 s, 230 MB). */
export const cephBinaries = (): Promise<ServiceBinaries> => found(ceph)

const searches = new Map<Service, Promise<ServiceBinaries>>()

/** Looks once per process. */
function found(service: Service): Promise<ServiceBinaries> {
  const search = searches.get(service) ?? find(service)
  searches.set(service, search)
  return search
}

async function find(service: Service): Promise<ServiceBinaries> {
  if (await onPath(service.programs)) return { command: (name) => name, env: {}, root: '', libDir: await libDirOf('') }
  const folder = join(servicesDir, service.folder)
  // Packages unpacked for another system (a copied checkout, an upgraded machine) do not work here and are replaced.
  const usable = async () => (await whyUnusable(service, folder)) === undefined
  if (await usable()) return unpacked(folder)
  if (!(await onPath(['apt-get', 'dpkg']))) throw new Error(missing(service))
  try {
    await unpackPackages(service.packages, folder, usable)
    const problem = await whyUnusable(service, folder)
    if (problem) throw problem
  } catch (error) {
    throw new Error(missing(service), { cause: error })
  }
  return unpacked(folder)
}

const missing = (service: Service) => `${service.programs[0]} is needed for the tests: install it (on Debian and Ubuntu: ${service.packages.join(' ')}) or set ${service.variables}.`

async function whyUnusable(service: Service, folder: string): Promise<Error | undefined> {
  try {
    const binaries = await unpacked(folder)
    await Promise.all(service.programs.map((name) => access(binaries.command(name), constants.X_OK)))
    await runCommand(binaries.command(service.programs[0] ?? ''), ['--version'], { env: binaries.env })
    return undefined
  } catch (error) {
    return error as Error
  }
}

async function unpacked(folder: string): Promise<ServiceBinaries> {
  const libDir = await libDirOf(folder)
  const libraries = [libDir, join(libDir, 'ceph'), libDir.replace(`${folder}/usr/lib`, `${folder}/lib`)]
  return {
    command: (name) => join(folder, 'usr', 'bin', name),
    env: { LD_LIBRARY_PATH: libraries.join(delimiter) },
    root: folder,
    libDir
  }
}

/** Debian's folder of this architecture's libraries (/usr/lib/x86_64-linux-gnu), elsewhere /usr/lib. */
async function libDirOf(root: string): Promise<string> {
  const lib = join(root || '/', 'usr', 'lib')
  const names = await readdir(lib)
  const cpu = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  return names.includes(`${cpu}-linux-gnu`) ? join(lib, `${cpu}-linux-gnu`) : lib
}

async function onPath(programs: readonly string[]): Promise<boolean> {
  const folders = (process.env.PATH ?? '').split(delimiter).filter(Boolean)
  const isThere = (program: string) => Promise.any(folders.map((folder) => access(join(folder, program), constants.X_OK)))
  try {
    await Promise.all(programs.map(isThere))
    return true
  } catch {
    // at least one of them is in no folder
    return false
  }
}
