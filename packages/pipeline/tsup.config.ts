import { library } from '../../tsup.base.ts'

export default library(['src/index.ts', 'src/node.ts', 'src/hono.ts', 'src/fetch.ts', 'src/breaker.ts', 'src/clock.ts', 'src/structured-fields.ts'])
