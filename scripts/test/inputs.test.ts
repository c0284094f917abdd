import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

interface DryRun {
  readonly tasks: readonly { readonly taskId: string; readonly inputs: Readonly<Record<string, string>>; readonly dependencies: readonly string[] }[]
}

// The server's tests read the README of the repository, which turbo did not know: with a README that was wrong by now, it replayed that they had passed.
test("a changed README of the repository runs the server's tests", () => {
  const json = execFileSync('turbo', ['run', 'test', '--filter=@proxy/server', '--dry=json'], { cwd: join(import.meta.dirname, '..', '..'), encoding: 'utf8' })
  const task = (JSON.parse(json) as DryRun).tasks.find(({ taskId }) => taskId === '@proxy/server#test')
  const inputs = Object.keys(task?.inputs ?? {})
  expect(inputs).toContain('../../README.md')
  expect(inputs).toContain('src/main.ts')
  expect(task?.dependencies).toContain('@proxy/server#build')
})
