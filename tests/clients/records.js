// The neutral record form of records.py, for the clients that run on Node.
'use strict'

const fs = require('node:fs')

const unhex = text => (text === null ? null : Buffer.from(text, 'hex'))

// The records of the standard input as [{ key, value, headers: [[name, Buffer or null]], timestamp or undefined }].
function read() {
  return fs
    .readFileSync(0, 'utf8')
    .split('\n')
    .filter(line => line !== '')
    .map(line => {
      const { k, v, h, t } = JSON.parse(line)
      return { key: unhex(k), value: unhex(v), headers: h.map(([name, value]) => [name, unhex(value)]), timestamp: t }
    })
}

// A consumed record, on the standard output.
function write(topic, p, { offset, timestamp, key, value, headers }) {
  const enhex = data => (data === null ? null : Buffer.from(data).toString('hex'))
  const pairs = Object.entries(headers ?? {}).flatMap(([name, values]) => [values].flat().map(v => [name, enhex(v)]))
  const record = { topic, p, o: Number(offset), t: Number(timestamp), k: enhex(key), v: enhex(value), h: pairs }
  fs.writeSync(1, JSON.stringify(record) + '\n')
}

// Cuts records into runs that stay well under the default max.message.bytes: these clients send what they are given as one batch.
function* runs(records, bytesMax = 500_000, countMax = 1000) {
  let run = []
  let bytes = 0
  for (const record of records) {
    const size = 100 + (record.value?.length ?? 0) + (record.key?.length ?? 0)
    if (run.length > 0 && (bytes + size > bytesMax || run.length === countMax)) {
      yield run
      run = []
      bytes = 0
    }
    run.push(record)
    bytes += size
  }
  if (run.length > 0) yield run
}

// Runs `produce BOOTSTRAP TOPIC CODEC [idempotent]`, `member BOOTSTRAP GROUP TOPIC [OPTION]...` or, if the client can
// without joining a group that others may see, `consume BOOTSTRAP TOPIC...`.
function main(produce, member, consume) {
  const [verb, bootstrap, ...rest] = process.argv.slice(2)
  const verbs = {
    produce: ([topic, codec, idempotent]) => produce(bootstrap, topic, codec, idempotent === 'idempotent'),
    member: ([group, topic, ...options]) => member(bootstrap, group, topic, ...options),
    ...(consume && { consume: topics => consume(bootstrap, topics) })
  }
  if (!(verb in verbs)) throw new Error('this client consumes only in groups')
  verbs[verb](rest).catch(error => {
    console.error(error)
    process.exit(1)
  })
}

module.exports = { read, write, runs, main }
