import { expect, test } from 'vitest'
import { commandFailure, replyCode } from '../src/errors.ts'

const reply = (message: string, previousErrors?: Error[]): Error => Object.assign(new Error(message), { name: 'ReplyError', command: { args: ['secret'] }, previousErrors })

test('the code of an error reply is its first word, also inside the wrapping that Redis 6 puts around errors of scripts', () => {
  expect(replyCode("OOM command not allowed when used memory > 'maxmemory'. script: 3f, on @user_script:2.")).toBe('OOM')
  expect(replyCode("ERR Error running script (call to f_3f): @user_script:2: @user_script: 2: -OOM command not allowed when used memory > 'maxmemory'. ")).toBe('OOM')
  expect(replyCode('LOADING')).toBe('LOADING')
})

test.each([
  ['OOM command not allowed', 'REDIS_WRITE_REFUSED', true],
  ["READONLY You can't write against a read only replica.", 'REDIS_WRITE_REFUSED', true],
  ['MISCONF Redis is configured to save RDB snapshots', 'REDIS_WRITE_REFUSED', true],
  ['NOREPLICAS Not enough good replicas to write.', 'REDIS_WRITE_REFUSED', true],
  ['WRONGTYPE Operation against a key', 'REDIS_WRONG_TYPE', true],
  ['ERR syntax error', 'REDIS_ERROR', true],
  ['LOADING Redis is loading the dataset in memory', 'REDIS_ERROR', false],
  ['NOAUTH Authentication required.', 'REDIS_ERROR', false],
  ['BUSY Redis is busy running a script.', 'REDIS_ERROR', false]
])('%s', (message, code, answered) => {
  const failure = commandFailure(reply(message))
  expect(failure.error.code).toBe(code)
  expect(failure.answered).toBe(answered)
})

test('the reason of an aborted transaction is the error of its command', () => {
  const failure = commandFailure(reply('EXECABORT Transaction discarded because of previous errors.', [reply('OOM command not allowed')]))
  expect(failure.error.code).toBe('REDIS_WRITE_REFUSED')
  expect(failure.answered).toBe(true)
})

test('silence and broken connections are no answers', () => {
  expect(commandFailure(new Error('Command timed out'))).toMatchObject({ error: { code: 'REDIS_TIMEOUT' }, answered: false })
  expect(commandFailure(new Error('read ECONNRESET'))).toMatchObject({ error: { code: 'REDIS_UNAVAILABLE' }, answered: false })
  expect(commandFailure('thrown text')).toMatchObject({ error: { code: 'REDIS_UNAVAILABLE' }, answered: false })
})

test('the driver error, which carries the arguments of its command, is not passed on', () => {
  const { error } = commandFailure(reply('ERR no'))
  expect(error.cause).toBeUndefined()
  expect(JSON.stringify(error)).not.toContain('secret')
})
