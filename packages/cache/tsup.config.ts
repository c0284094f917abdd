import { library } from '../../tsup.base.ts'

export default library(['src/index.ts', 'src/conformance.ts', 'src/blocks.ts', 'src/purging.ts'])
