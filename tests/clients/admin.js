// What the admin scripts of the Node clients share: the scenario of admin.py, told in the same way.
'use strict'

const assert = require('node:assert/strict')
const { inspect } = require('node:util')

const START_MS = 1_700_000_000_000
const times = Array.from({ length: 10 }, (_, number) => START_MS + 1000 * number)
times[4] = START_MS + 60_000

module.exports = {
  TOPIC: 'admin.topic-1',
  BAD_NAME: 'no/slash',
  GROUP: 'admin.group',
  RETENTION_MS: '123456789',
  // Error codes of the protocol.
  OFFSET_OUT_OF_RANGE: 1,
  UNKNOWN_TOPIC_OR_PARTITION: 3,
  INVALID_TOPIC: 17,
  UNKNOWN_MEMBER_ID: 25,
  ALREADY_EXISTS: 36,
  INVALID_PARTITIONS: 37,
  INVALID_REPLICATION: 38,
  INVALID_REPLICA_ASSIGNMENT: 39,
  INVALID_CONFIG: 40,
  INVALID_REQUEST: 42,
  SECURITY_DISABLED: 54,
  NON_EMPTY_GROUP: 68,
  GROUP_ID_NOT_FOUND: 69,
  NO_REASSIGNMENT_IN_PROGRESS: 85,
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

  // Runs the parts one after the other, each a function with a name, and prints what came of each.
  async run(parts) {
    for (const part of parts) {
      try {
        await part()
        console.log(`${part.name}: ok`)
      } catch (error) {
        console.log(`${part.name}: ${inspect(error).replace(/\s+/g, ' ').slice(0, 1500)}`)
      }
    }
  }
}
