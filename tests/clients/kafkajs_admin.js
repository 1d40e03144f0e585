// kafkajs's admin client: see admin.py for the scenario.
'use strict'

const assert = require('node:assert/strict')
const kafkajs = require('kafkajs')
const { ConfigResourceTypes } = kafkajs
const scenario = require('./admin.js')
const { TOPIC, GROUP, BAD_NAME, RETENTION_MS, START_MS, times } = scenario

// Bundles of errors have theirs under a name each, and may themselves be the cause of another.
const codesOf = error =>
  [error.cause?.partitions ?? error.errors ?? error.groups ?? error]
    .flat()
    .map(cause => cause.code ?? cause.errorCode ?? cause.error?.code ?? cause.cause?.code)
const refused = (what, code, promise) => scenario.refused(what, code, promise, codesOf)

const bootstrap = process.argv[2]
// Refusals are expected here: no log.
const kafka = new kafkajs.Kafka({ clientId: 'somebody', brokers: [bootstrap], logLevel: kafkajs.logLevel.NOTHING })
const admin = kafka.admin()

const names = async () => (await admin.listTopics()).filter(name => !name.startsWith('__'))
const create = (topic, numPartitions = 3, replicationFactor = 1, validateOnly = false) =>
  admin.createTopics({
    // Waiting for leaders would ask for the metadata of a topic that validateOnly did not make, and so create it.
    waitForLeaders: !validateOnly,
    validateOnly,
    topics: [{ topic, numPartitions, replicationFactor, configEntries: [{ name: 'retention.ms', value: RETENTION_MS }] }]
  })

async function topics() {
  await create(TOPIC, 3, 1, true)
  assert.deepEqual(await names(), [])
  assert.equal(await create(TOPIC), true)
  assert.deepEqual(await names(), [TOPIC])
  // kafkajs gives false for a topic that exists.
  assert.equal(await create(TOPIC), false)
  await refused('a bad name', scenario.INVALID_TOPIC, create(BAD_NAME))
  await refused('three replicas on one broker', scenario.INVALID_REPLICATION, create('other', 1, 3))
}

async function partitions() {
  const grow = (topic, count) => admin.createPartitions({ topicPartitions: [{ topic, count }] })
  await grow(TOPIC, 5)
  const { topics } = await admin.fetchTopicMetadata({ topics: [TOPIC] })
  assert.deepEqual(topics[0].partitions.map(partition => partition.partitionId).sort(), [0, 1, 2, 3, 4])
  await refused('fewer partitions', scenario.INVALID_PARTITIONS, grow(TOPIC, 2))
}

async function cluster() {
  const found = await admin.describeCluster()
  assert.deepEqual(found.brokers.map(({ host, port }) => `${host}:${port}`), [bootstrap])
  assert.equal(found.controller, found.brokers[0].nodeId)
  assert.ok(found.clusterId)
}

const describeConfigs = async (type, name) => {
  const { resources } = await admin.describeConfigs({ includeSynonyms: true, resources: [{ type, name }] })
  return Object.fromEntries(resources[0].configEntries.map(entry => [entry.configName, entry]))
}

async function configs() {
  const config = await describeConfigs(ConfigResourceTypes.TOPIC, TOPIC)
  assert.equal(config['retention.ms'].configValue, RETENTION_MS)
  assert.equal(config['retention.ms'].isDefault, false)
  assert.equal(config['segment.bytes'].configValue, '1073741824')
  const { controller } = await admin.describeCluster()
  const broker = await describeConfigs(ConfigResourceTypes.BROKER, String(controller))
  assert.equal(broker['num.partitions'].configValue, '1')
  const nothing = describeConfigs(ConfigResourceTypes.TOPIC, 'nothing')
  await refused('configs of nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, nothing)
}

async function alter() {
  const change = (topic, name, value, validateOnly = false) => {
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name, value }] }
    return admin.alterConfigs({ validateOnly, resources: [resource] })
  }
  const found = async name => (await describeConfigs(ConfigResourceTypes.TOPIC, TOPIC))[name].configValue
  await change(TOPIC, 'max.message.bytes', '65536', true)
  assert.equal(await found('max.message.bytes'), '1048588')
  await change(TOPIC, 'max.message.bytes', '65536')
  assert.equal(await found('max.message.bytes'), '65536')
  // It replaces all settings.
  assert.equal(await found('retention.ms'), '604800000')
  await refused('a bad value', scenario.INVALID_CONFIG, change(TOPIC, 'max.message.bytes', 'many'))
  await refused('an unknown setting', scenario.INVALID_CONFIG, change(TOPIC, 'no.such.setting', '1'))
  await refused('alter nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, change('nothing', 'max.message.bytes', '1'))
}

const at = (offsets, partition) => offsets.find(offset => offset.partition === partition)

async function offsets() {
  const producer = kafka.producer()
  await producer.connect()
  const messages = times.map(time => ({ value: 'value', partition: 1, timestamp: String(time) }))
  await producer.send({ topic: TOPIC, messages })
  await producer.disconnect()
  const { low, high } = at(await admin.fetchTopicOffsets(TOPIC), 1)
  assert.deepEqual([low, high], ['0', '10'])
  // Past the last time kafkajs gives the end instead of "none".
  const byTime = [[START_MS, 0], [START_MS + 1, 1], [START_MS + 3_001, 4], [START_MS + 60_000, 4], [START_MS + 60_001, 10]]
  for (const [time, offset] of byTime) {
    const found = at(await admin.fetchTopicOffsetsByTimestamp(TOPIC, time), 1).offset
    assert.equal(found, String(offset), `offset at ${time}`)
  }
}

async function deleteRecords() {
  const remove = offset => admin.deleteTopicRecords({ topic: TOPIC, partitions: [{ partition: 1, offset }] })
  await remove('4')
  assert.equal(at(await admin.fetchTopicOffsets(TOPIC), 1).low, '4')
  await refused('beyond the end', scenario.OFFSET_OUT_OF_RANGE, remove('11'))
  await remove('-1')
  assert.equal(at(await admin.fetchTopicOffsets(TOPIC), 1).low, '10')
}

async function groups() {
  assert.deepEqual(await admin.listGroups(), { groups: [] })
  await refused('delete an unknown group', scenario.GROUP_ID_NOT_FOUND, admin.deleteGroups([GROUP]))
  // Joins, commits and leaves by itself.
  await admin.setOffsets({ groupId: GROUP, topic: TOPIC, partitions: [{ partition: 1, offset: '7' }] })
  const committed = async () => at((await admin.fetchOffsets({ groupId: GROUP, topics: [TOPIC] }))[0].partitions, 1).offset
  assert.equal(await committed(), '7')
  assert.deepEqual(await admin.listGroups(), { groups: [{ groupId: GROUP, protocolType: 'consumer' }] })
  await admin.resetOffsets({ groupId: GROUP, topic: TOPIC, earliest: true })
  assert.equal(await committed(), '-2')

  const consumer = kafka.consumer({ groupId: GROUP })
  await consumer.connect()
  await consumer.subscribe({ topics: [TOPIC] })
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.GROUP_JOIN, resolve)
    consumer.run({ eachMessage: async () => {} }).catch(reject)
  })
  const { groups } = await admin.describeGroups([GROUP])
  const { state, protocolType, protocol, members } = groups[0]
  assert.deepEqual([state, protocolType, protocol], ['Stable', 'consumer', 'RoundRobinAssigner'])
  assert.deepEqual(members.map(({ clientId, clientHost }) => [clientId, clientHost]), [['somebody', '/127.0.0.1']])
  const { assignment } = kafkajs.AssignerProtocol.MemberAssignment.decode(members[0].memberAssignment)
  assert.deepEqual(assignment[TOPIC], [0, 1, 2, 3, 4])
  await refused('delete a living group', scenario.NON_EMPTY_GROUP, admin.deleteGroups([GROUP]))
  await consumer.disconnect()
  assert.equal((await admin.describeGroups([GROUP])).groups[0].state, 'Empty')
  await admin.deleteGroups([GROUP])
  assert.deepEqual(await admin.listGroups(), { groups: [] })
}

async function reassignments() {
  const { controller } = await admin.describeCluster()
  const reassign = (topic, replicas) =>
    admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: [{ partition: 1, replicas }] }] })
  await reassign(TOPIC, [controller])
  assert.deepEqual((await admin.listPartitionReassignments({})).topics, [])
  await refused('to a broker that is not', scenario.INVALID_REPLICA_ASSIGNMENT, reassign(TOPIC, [controller + 1]))
  await refused('reassign nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, reassign('nothing', [controller]))
}

async function acls() {
  const { AclResourceTypes, ResourcePatternTypes, AclOperationTypes, AclPermissionTypes } = kafkajs
  const acl = {
    resourceType: AclResourceTypes.TOPIC,
    resourceName: TOPIC,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: 'User:u',
    host: '*',
    operation: AclOperationTypes.READ,
    permissionType: AclPermissionTypes.ALLOW
  }
  await refused('createAcls', scenario.SECURITY_DISABLED, admin.createAcls({ acl: [acl] }))
  await refused('describeAcls', scenario.SECURITY_DISABLED, admin.describeAcls(acl))
  await refused('deleteAcls', scenario.SECURITY_DISABLED, admin.deleteAcls({ filters: [acl] }))
}

async function deleteTopics() {
  await admin.deleteTopics({ topics: [TOPIC] })
  assert.deepEqual(await names(), [])
  await refused('delete again', scenario.UNKNOWN_TOPIC_OR_PARTITION, admin.deleteTopics({ topics: [TOPIC] }))
}

admin
  .connect()
  .then(() =>
    scenario.run([
      topics,
      partitions,
      cluster,
      configs,
      offsets,
      alter,
      deleteRecords,
      groups,
      reassignments,
      acls,
      deleteTopics
    ])
  )
  .finally(() => admin.disconnect())
