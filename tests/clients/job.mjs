// A VM's life through the xen-api package, unchanged: connect, watch events, clone, start, change, stop, destroy.
// node job.mjs URL TRANSPORT TEMPLATE; the password is in XAPI_PASSWORD. Prints what it saw as one JSON object.
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [url, transport, template] = process.argv.slice(2)
const require = createRequire(path.join(process.env.NODE_MODULES, 'package.json'))
const { createClient } = await import(pathToFileURL(require.resolve('xen-api')))

const xapi = createClient({
  url,
  allowUnauthorized: true,
  auth: { user: 'root', password: process.env.XAPI_PASSWORD },
  transport,
})

const seen = { events: { add: 0, update: 0, remove: 0 } }
const objects = xapi.objects
for (const event of Object.keys(seen.events)) {
  objects.on(event, found => { seen.events[event] += Object.keys(found).length })
}

// Resolves once the watched objects fulfil the condition.
function until(condition) {
  return new Promise(resolve => {
    const look = () => {
      if (condition()) {
        objects.removeListener('finish', look)
        resolve()
      }
    }
    objects.on('finish', look)
    look()
  })
}

await xapi.connect()
await xapi.objectsFetched
seen.pool = xapi.pool.$type
seen.sessions = xapi.sessionId.startsWith('OpaqueRef:')

const source = Object.values(objects.all).find(each => each.$type === 'VM' && each.is_a_template && each.name_label === template)
const vm = await xapi.callAsync('VM.clone', source.$ref, `xen-api over ${transport}`)
await until(() => objects.all[xapi.getObjectByRef(vm, null)?.$id] !== undefined)
await xapi.call('VM.provision', vm)
await xapi.setFieldEntry('VM', vm, 'other_config', 'from', 'xen-api')
await xapi.barrier(vm)
seen.other_config = xapi.getObjectByRef(vm).other_config.from

const task = await xapi.call('Async.VM.start', vm, false, false)
seen.task = await xapi.watchTask(task)
await xapi.call('task.destroy', task)
await until(() => xapi.getObjectByRef(vm).power_state === 'Running')
const record = await xapi.getRecord('VM', vm)
seen.record = { power_state: record.power_state, VCPUs_max: typeof record.VCPUs_max, is_a_template: record.is_a_template }
seen.resident = xapi.getObjectByRef(vm).$resident_on.$type

await xapi.callAsync('VM.hard_shutdown', vm)
await until(() => xapi.getObjectByRef(vm).power_state === 'Halted')
await xapi.callAsync('VM.destroy', vm)
await until(() => xapi.getObjectByRef(vm, null) === null)

await xapi.call('VM.start', vm, false, false).catch(error => { seen.refused = { code: error.code, params: error.params } })
seen.refused.params[1] = seen.refused.params[1] === vm ? 'the VM' : seen.refused.params[1]
await xapi.disconnect()
console.log(JSON.stringify(seen))
process.exit(0)
