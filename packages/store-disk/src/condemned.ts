/** Beyond, the oldest are forgotten. */
const MAX_VERSIONS = 4096

/**
 * Versions that must not be served although their files may be there: broken ones that could not be removed, and those whose commit was given up and that may
 * become visible any time. They are remembered also when they have been removed: a lookup may have opened the file just before.
 */
export class Condemned {
  private readonly versions = new Set<string>()

  add(version: string): void {
    this.versions.add(version)
    if (this.versions.size <= MAX_VERSIONS) return
    for (const oldest of this.versions) {
      this.versions.delete(oldest)
      return
    }
  }

  has(version: string): boolean {
    return this.versions.has(version)
  }
}
