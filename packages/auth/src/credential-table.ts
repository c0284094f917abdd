import type { Principal } from '@proxy/pipeline'
import { constantTimeIndexOf } from './constant-time.ts'

/** Secrets and whom each stands for. The fields are truly private: nothing that prints, serialises or walks a verifier can reach them. */
export class CredentialTable {
  readonly #secrets: readonly string[]
  readonly #principals: readonly Principal[]

  /** `principals[i]` is shown by `secrets[i]`. The principals are handed out as they are, so they are frozen here. */
  constructor(secrets: readonly string[], principals: readonly Principal[]) {
    this.#secrets = secrets
    this.#principals = principals.map((principal) => Object.freeze(principal))
  }

  /** Whom `credential` stands for. Compares with every secret, see `constantTimeIndexOf`. */
  match(credential: string): Principal | undefined {
    const index = constantTimeIndexOf(credential, this.#secrets)
    return index < 0 ? undefined : this.#principals[index]
  }
}
