// @platformatic/kafka's admin client: see admin.py for the scenario.
'use strict'

const assert = require('node:assert/strict')
const { Admin, Producer, ConfigResourceTypes, ListOffsetTimestamps } = require('@platformatic/kafka')
const scenario = require('./admin.js')
const { TOPIC, BAD_NAME, RETENTION_MS, START_MS, times } = scenario

// Errors come in nested bundles; the innermost carry the protocol's code.
function codesOf(error) {
  const codes = (error.errors ?? []).flatMap(codesOf)
  return codes.length > 0 ? codes : error.apiCode === undefined ? [] : [error.apiCode]
}
const refused = (what, code, promise) => scenario.refused(what, code, promise, codesOf)

scenario.main(process.argv[2], async bootstrap => {
  const options = { clientId: 'ottla-test', bootstrapBrokers: [bootstrap], retries: 0 }
  const admin = new Admin(options)
  const create = (topic, partitions = 3, replicas = 1) =>
    admin.createTopics({ topics: [topic], partitions, replicas, configs: [{ name: 'retention.ms', value: RETENTION_MS }] })

  const [created] = await create(TOPIC)
  assert.deepEqual([created.name, created.partitions, created.replicas], [TOPIC, 3, 1])
  assert.deepEqual(await admin.listTopics(), [TOPIC])
  await refused('create again', scenario.ALREADY_EXISTS, create(TOPIC))
  await refused('a bad name', scenario.INVALID_TOPIC, create(BAD_NAME))
  await refused('three replicas on one broker', scenario.INVALID_REPLICATION, create('other', 1, 3))

  const grow = (name, count) => admin.createPartitions({ topics: [{ name, count, assignments: null }] })
  await grow(TOPIC, 5)
  await refused('fewer partitions', scenario.INVALID_PARTITIONS, grow(TOPIC, 2))
  await refused('partitions of nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, grow('nothing', 2))
  const metadata = await admin.metadata({ topics: [TOPIC], forceUpdate: true })
  assert.equal(metadata.topics.get(TOPIC).partitionsCount, 5)
  assert.equal(metadata.topics.get(TOPIC).id, created.id)
  assert.deepEqual([...metadata.brokers.values()].map(({ host, port }) => `${host}:${port}`), [bootstrap])

  const configs = async (resourceType, resourceName) => {
    const [found] = await admin.describeConfigs({ resources: [{ resourceType, resourceName }], includeDocumentation: true })
    return Object.fromEntries(found.configs.map(entry => [entry.name, entry.value]))
  }
  const config = await configs(ConfigResourceTypes.TOPIC, TOPIC)
  assert.deepEqual([config['retention.ms'], config['segment.bytes']], [RETENTION_MS, '1073741824'])
  await refused('configs of nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, configs(ConfigResourceTypes.TOPIC, 'nothing'))

  const producer = new Producer(options)
  const messages = times.map(time => ({ topic: TOPIC, partition: 1, value: Buffer.from('value'), timestamp: BigInt(time) }))
  await producer.send({ messages, compression: 'zstd' })
  await producer.close()
  const offsetAt = async timestamp => {
    const [{ partitions }] = await admin.listOffsets({
      topics: [{ name: TOPIC, partitions: [{ partitionIndex: 1, timestamp: BigInt(timestamp) }] }]
    })
    return [Number(partitions[0].offset), Number(partitions[0].timestamp)]
  }
  assert.equal((await offsetAt(ListOffsetTimestamps.EARLIEST))[0], 0)
  assert.equal((await offsetAt(ListOffsetTimestamps.EARLIEST_LOCAL))[0], 0)
  assert.equal((await offsetAt(ListOffsetTimestamps.LATEST))[0], 10)
  assert.deepEqual(await offsetAt(ListOffsetTimestamps.MAX), [4, times[4]])
  const byTime = [[START_MS, 0], [START_MS + 1, 1], [START_MS + 3_001, 4], [START_MS + 60_000, 4], [START_MS + 60_001, -1]]
  for (const [time, offset] of byTime) {
    assert.deepEqual(await offsetAt(time), [offset, offset < 0 ? -1 : times[offset]], `offset at ${time}`)
  }

  await admin.deleteTopics({ topics: [TOPIC] })
  assert.deepEqual(await admin.listTopics(), [])
  await refused('delete again', scenario.UNKNOWN_TOPIC_OR_PARTITION, admin.deleteTopics({ topics: [TOPIC] }))
  await admin.close()
})
