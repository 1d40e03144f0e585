// What the admin scripts of the Node clients share: the scenario of admin.py.
'use strict'

const assert = require('node:assert/strict')

const START_MS = 1_700_000_000_000
const times = Array.from({ length: 10 }, (_, number) => START_MS + 1000 * number)
times[4] = START_MS + 60_000

module.exports = {
  TOPIC: 'admin.topic-1',
  BAD_NAME: 'no/slash',
  RETENTION_MS: '123456789',
  // Error codes of the protocol.
  UNKNOWN_TOPIC_OR_PARTITION: 3,
  INVALID_TOPIC: 17,
  ALREADY_EXISTS: 36,
  INVALID_PARTITIONS: 37,
  INVALID_REPLICATION: 38,
  // Ten records whose times rise by a second each, but for number 4, which is the latest of all.
  START_MS,
  times,

  // `promise` must be refused, and the protocol's error code `code` be among the codes that `codesOf` finds in the error.
  async refused(what, code, promise, codesOf) {
    let result
    try {
      result = await promise
    } catch (error) {
      return assert.deepEqual(codesOf(error), [code], `${what}: ${error.stack}`)
    }
    assert.fail(`${what}: not refused, gave ${JSON.stringify(result)}`)
  },

  main(bootstrap, script) {
    script(bootstrap).catch(error => {
      console.error(error)
      process.exit(1)
    })
  }
}
