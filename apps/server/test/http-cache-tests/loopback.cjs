// Loaded before the suite's origin, which would listen on every address of the machine.
const { Server } = require('node:net')
const { listen } = Server.prototype
Server.prototype.listen = function (port) {
  return listen.call(this, { port: Number(port), host: '127.0.0.1' })
}
