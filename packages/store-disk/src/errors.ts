import { isProxyError, ProxyError } from '@proxy/pipeline'

/** Why the disk did not do what was asked. Named values: also labels of metrics. */
export type DiskFailureKind =
  /** ENOSPC or EDQUOT. */
  | 'full'
  /** EROFS. */
  | 'read-only'
  /** EACCES or EPERM. */
  | 'denied'
  /** EIO and every other error of the file system. */
  | 'io'
  /** No answer within the deadline. */
  | 'timeout'
  /** Too much is under way already: open files or operations. */
  | 'busy'
  /** The file is not what was written. */
  | 'broken'
  /** The entry waited too long for being opened, or its file is no more. */
  | 'gone'
  /** The caller gave up. */
  | 'aborted'
  /** The breaker is open: nothing was tried. */
  | 'unavailable'
  | 'closed'

const messages: Readonly<Record<DiskFailureKind, string>> = {
  full: 'the disk is full',
  'read-only': 'the file system is read-only',
  denied: 'the file system refused access',
  io: 'the disk failed',
  timeout: 'the disk did not answer in time',
  busy: 'too many files or operations are open',
  broken: 'the stored file is broken',
  gone: 'the entry is no longer open',
  aborted: 'the read was given up',
  unavailable: 'the disk is not asked at the moment',
  closed: 'the store is closed'
}

/** Every failure of this package: `code` is `DISK_` and the kind (`DISK_READ_ONLY`), `message` a fixed sentence, `cause` the error of the file system where there is one. */
export class DiskError extends ProxyError {
  readonly kind: DiskFailureKind

  constructor(kind: DiskFailureKind, cause?: unknown) {
    super(messages[kind], { code: `DISK_${kind.replace('-', '_').toUpperCase()}`, status: 502, source: 'proxy', cause })
    this.kind = kind
  }
}

const kinds: Readonly<Record<string, DiskFailureKind>> = {
  ENOSPC: 'full',
  EDQUOT: 'full',
  EROFS: 'read-only',
  EACCES: 'denied',
  EPERM: 'denied',
  EMFILE: 'busy',
  ENFILE: 'busy'
}

/** The system's code of an error, such as `ENOENT`; undefined where it has none. */
export function systemCode(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** Whether there is nothing at the path that was asked for. */
export function isAbsent(error: unknown): boolean {
  const code = systemCode(error)
  return code === 'ENOENT' || code === 'ENOTDIR'
}

/** Anything that an operation on files threw, as a `DiskError`. */
export function toDiskError(thrown: unknown): DiskError {
  if (isProxyError(thrown) && 'kind' in thrown) return thrown as DiskError
  return new DiskError(kinds[systemCode(thrown) ?? ''] ?? 'io', thrown)
}
