import { randomUUID } from 'node:crypto'
import { mkdir, readdir, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { runCommand } from './run-command.ts'
import { createTempDir } from './temp-dir.ts'

/**
 * Unpacks Debian packages and the libraries they need into `folder`, without installing anything and without root.
 * The folder appears whole or not at all; one that is there and not `usable` is replaced. Where two processes do it at once, both use the result of one of them.
 */
export async function unpackPackages(packages: readonly string[], folder: string, usable: () => Promise<boolean>): Promise<void> {
  await mkdir(dirname(folder), { recursive: true })
  const temp = await createTempDir(`.${basename(folder)}-`, dirname(folder))
  try {
    const archives = await download(packages, temp.path)
    const root = join(temp.path, 'root')
    await mkdir(root)
    for (const archive of await readdir(archives)) if (archive.endsWith('.deb')) await runCommand('dpkg', ['-x', join(archives, archive), root])
    while (!(await move(root, folder)) && !(await usable())) await move(folder, join(temp.path, `discarded-${randomUUID()}`))
  } finally {
    await temp.remove()
  }
}

/**
 * Resolves with the folder of the downloaded packages. Goes by the package lists of the system or, where it has none (as in a new container) or outdated ones,
 * by lists of our own: this works without root and leaves the system as it is.
 */
async function download(packages: readonly string[], temp: string): Promise<string> {
  try {
    return await downloadWith([], packages, join(temp, 'archives'))
  } catch {
    // whatever was wrong with the system's lists: what fails with new ones is the error to report
    return downloadWith(await fetchLists(temp), packages, join(temp, 'archives-by-own-lists'))
  }
}

async function fetchLists(temp: string): Promise<string[]> {
  const lists = join(temp, 'lists')
  const cache = join(temp, 'cache')
  await mkdir(join(lists, 'partial'), { recursive: true })
  await mkdir(join(cache, 'archives', 'partial'), { recursive: true })
  const options = ['-o', `Dir::State::lists=${lists}`, '-o', `Dir::Cache=${cache}`]
  await runCommand('apt-get', [...options, ...unsandboxed, '-qq', 'update'], { timeoutMs: 300_000 })
  return options
}

// apt would download as the user _apt, who cannot write into our folder
const unsandboxed = ['-o', 'APT::Sandbox::User=']

async function downloadWith(options: readonly string[], packages: readonly string[], archives: string): Promise<string> {
  await mkdir(archives)
  const plan = await runCommand('apt-get', [...options, '--simulate', '--no-install-recommends', 'install', ...packages])
  const names = neededPackages(plan, packages)
  await runCommand('apt-get', [...options, ...unsandboxed, '-qq', 'download', ...names], { cwd: archives, timeoutMs: 600_000 })
  return archives
}

/**
 * Of what an installation would add: the packages asked for, those of the same family (`redis-tools`, `ceph-base`) and shared libraries,
 * which Debian names lib* (and lua-* for the Lua modules redis-server links). Not the C library: it has to fit the system's loader.
 */
export function neededPackages(plan: string, packages: readonly string[]): string[] {
  const families = new Set(packages.map((name) => name.split('-')[0]))
  const names: string[] = []
  for (const [, name = ''] of plan.matchAll(/^Inst (\S+)/gm)) {
    const isLibrary = (name.startsWith('lib') && !name.startsWith('libc6')) || name.startsWith('lua-')
    if (isLibrary || families.has(name.split('-')[0])) names.push(name)
  }
  return names
}

/** Renames in one step. False if there is a folder already (`to`) or none any more (`from`): another process was faster. */
async function move(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    if (['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return false
    throw error
  }
}
