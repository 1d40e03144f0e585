// kafkajs's admin client: see admin.py for the scenario.
'use strict'

const assert = require('node:assert/strict')
const { Kafka, ConfigResourceTypes, logLevel } = require('kafkajs')
const scenario = require('./admin.js')
const { TOPIC, BAD_NAME, RETENTION_MS, START_MS, times } = scenario

const codesOf = error => (error.errors ?? [error]).map(cause => cause.code ?? cause.cause?.code)
const refused = (what, code, promise) => scenario.refused(what, code, promise, codesOf)

scenario.main(process.argv[2], async bootstrap => {
  // Refusals are expected here: no retries, no log.
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING })
  const admin = kafka.admin()
  await admin.connect()
  const create = (topic, numPartitions = 3, replicationFactor = 1, validateOnly = false) =>
    admin.createTopics({
      // Waiting for leaders would ask for the metadata of a topic that validateOnly did not make, and so create it.
      waitForLeaders: !validateOnly,
      validateOnly,
      topics: [{ topic, numPartitions, replicationFactor, configEntries: [{ name: 'retention.ms', value: RETENTION_MS }] }]
    })

  await create(TOPIC, 3, 1, true)
  assert.deepEqual(await admin.listTopics(), [])
  assert.equal(await create(TOPIC), true)
  assert.deepEqual(await admin.listTopics(), [TOPIC])
  // kafkajs gives false for a topic that exists.
  assert.equal(await create(TOPIC), false)
  await refused('a bad name', scenario.INVALID_TOPIC, create(BAD_NAME))
  await refused('three replicas on one broker', scenario.INVALID_REPLICATION, create('other', 1, 3))

  const grow = (topic, count) => admin.createPartitions({ topicPartitions: [{ topic, count }] })
  await grow(TOPIC, 5)
  const { topics } = await admin.fetchTopicMetadata({ topics: [TOPIC] })
  assert.deepEqual(topics[0].partitions.map(partition => partition.partitionId).sort(), [0, 1, 2, 3, 4])
  await refused('fewer partitions', scenario.INVALID_PARTITIONS, grow(TOPIC, 2))

  const cluster = await admin.describeCluster()
  assert.deepEqual(cluster.brokers.map(({ host, port }) => `${host}:${port}`), [bootstrap])
  assert.equal(cluster.controller, cluster.brokers[0].nodeId)
  assert.ok(cluster.clusterId)

  const configs = async (type, name) => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: true, resources: [{ type, name }] })
    return Object.fromEntries(resources[0].configEntries.map(entry => [entry.configName, entry]))
  }
  const config = await configs(ConfigResourceTypes.TOPIC, TOPIC)
  assert.equal(config['retention.ms'].configValue, RETENTION_MS)
  assert.equal(config['retention.ms'].isDefault, false)
  assert.equal(config['segment.bytes'].configValue, '1073741824')
  assert.equal((await configs(ConfigResourceTypes.BROKER, String(cluster.controller)))['num.partitions'].configValue, '1')
  await refused('configs of nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, configs(ConfigResourceTypes.TOPIC, 'nothing'))

  const producer = kafka.producer()
  await producer.connect()
  const messages = times.map(time => ({ value: 'value', partition: 1, timestamp: String(time) }))
  await producer.send({ topic: TOPIC, messages })
  await producer.disconnect()
  const at = (offsets, partition) => offsets.find(offset => offset.partition === partition)
  const { low, high } = at(await admin.fetchTopicOffsets(TOPIC), 1)
  assert.deepEqual([low, high], ['0', '10'])
  // Past the last time kafkajs gives the end instead of "none".
  const byTime = [[START_MS, 0], [START_MS + 1, 1], [START_MS + 3_001, 4], [START_MS + 60_000, 4], [START_MS + 60_001, 10]]
  for (const [time, offset] of byTime) {
    const found = at(await admin.fetchTopicOffsetsByTimestamp(TOPIC, time), 1).offset
    assert.equal(found, String(offset), `offset at ${time}`)
  }

  await admin.deleteTopics({ topics: [TOPIC] })
  assert.deepEqual(await admin.listTopics(), [])
  await refused('delete again', scenario.UNKNOWN_TOPIC_OR_PARTITION, admin.deleteTopics({ topics: [TOPIC] }))
  await admin.disconnect()
})
