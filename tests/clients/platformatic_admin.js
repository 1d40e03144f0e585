// @platformatic/kafka's admin client: see admin.py for the scenario.
'use strict'

const assert = require('node:assert/strict')
const kafka = require('@platformatic/kafka')
const { ConfigResourceTypes, IncrementalAlterConfigOperationTypes: Operations, ListOffsetTimestamps } = kafka
const scenario = require('./admin.js')
const { TOPIC, GROUP, BAD_NAME, RETENTION_MS, START_MS, times } = scenario

// Errors come in nested bundles; the innermost carry the protocol's code.
function codesOf(error) {
  const codes = (error.errors ?? []).flatMap(codesOf)
  return codes.length > 0 ? codes : error.apiCode === undefined ? [] : [error.apiCode]
}
const refused = (what, code, promise) => scenario.refused(what, code, promise, codesOf)

const bootstrap = process.argv[2]
const options = { clientId: 'somebody', bootstrapBrokers: [bootstrap], retries: 0 }
const admin = new kafka.Admin(options)
const create = (topic, partitions = 3, replicas = 1) =>
  admin.createTopics({ topics: [topic], partitions, replicas, configs: [{ name: 'retention.ms', value: RETENTION_MS }] })

async function topics() {
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
}

const describeConfigs = async (resourceType, resourceName) => {
  const [found] = await admin.describeConfigs({ resources: [{ resourceType, resourceName }], includeDocumentation: true })
  return Object.fromEntries(found.configs.map(entry => [entry.name, entry.value]))
}

async function configs() {
  const config = await describeConfigs(ConfigResourceTypes.TOPIC, TOPIC)
  assert.deepEqual([config['retention.ms'], config['segment.bytes']], [RETENTION_MS, '1073741824'])
  const nothing = describeConfigs(ConfigResourceTypes.TOPIC, 'nothing')
  await refused('configs of nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, nothing)
}

async function alter() {
  const change = (resourceName, name, value, configOperation = Operations.SET) =>
    admin.incrementalAlterConfigs({
      resources: [{ resourceType: ConfigResourceTypes.TOPIC, resourceName, configs: [{ name, configOperation, value }] }]
    })
  const found = async name => (await describeConfigs(ConfigResourceTypes.TOPIC, TOPIC))[name]
  await change(TOPIC, 'max.message.bytes', '65536')
  assert.deepEqual([await found('max.message.bytes'), await found('retention.ms')], ['65536', RETENTION_MS])
  await change(TOPIC, 'max.message.bytes', null, Operations.DELETE)
  assert.equal(await found('max.message.bytes'), '1048588')
  await refused('a bad value', scenario.INVALID_CONFIG, change(TOPIC, 'max.message.bytes', 'many'))
  await refused('alter nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, change('nothing', 'max.message.bytes', '1'))
}

const offsetAt = async timestamp => {
  const [{ partitions }] = await admin.listOffsets({
    topics: [{ name: TOPIC, partitions: [{ partitionIndex: 1, timestamp: BigInt(timestamp) }] }]
  })
  return [Number(partitions[0].offset), Number(partitions[0].timestamp)]
}

async function offsets() {
  const producer = new kafka.Producer(options)
  const messages = times.map(time => ({ topic: TOPIC, partition: 1, value: Buffer.from('value'), timestamp: BigInt(time) }))
  await producer.send({ messages, compression: 'zstd' })
  await producer.close()
  assert.equal((await offsetAt(ListOffsetTimestamps.EARLIEST))[0], 0)
  assert.equal((await offsetAt(ListOffsetTimestamps.EARLIEST_LOCAL))[0], 0)
  assert.equal((await offsetAt(ListOffsetTimestamps.LATEST))[0], 10)
  assert.deepEqual(await offsetAt(ListOffsetTimestamps.MAX), [4, times[4]])
  const byTime = [[START_MS, 0], [START_MS + 1, 1], [START_MS + 3_001, 4], [START_MS + 60_000, 4], [START_MS + 60_001, -1]]
  for (const [time, offset] of byTime) {
    assert.deepEqual(await offsetAt(time), [offset, offset < 0 ? -1 : times[offset]], `offset at ${time}`)
  }
}

async function deleteRecords() {
  const remove = offset => admin.deleteRecords({ topics: [{ name: TOPIC, partitions: [{ partition: 1, offset }] }] })
  assert.equal((await remove(4n))[0].partitions[0].lowWatermark, 4n)
  assert.equal((await offsetAt(ListOffsetTimestamps.EARLIEST))[0], 4)
  await refused('beyond the end', scenario.OFFSET_OUT_OF_RANGE, remove(11n))
}

async function logDirs() {
  const [{ results }] = await admin.describeLogDirs({ topics: [{ name: TOPIC, partitions: [0, 1] }] })
  const [{ topics }] = results
  const sizes = topics[0].partitions.map(({ partitionIndex, partitionSize }) => [partitionIndex, partitionSize > 0n])
  assert.deepEqual(sizes.sort(), [[0, false], [1, true]])
}

async function groups() {
  const listed = async filter => [...(await admin.listGroups(filter)).values()]
  assert.deepEqual(await listed(), [])
  const [coordinator] = await admin.findCoordinator({ keyType: kafka.FindCoordinatorKeyTypes.GROUP, keys: [GROUP] })
  assert.deepEqual([coordinator.key, `${coordinator.host}:${coordinator.port}`], [GROUP, bootstrap])
  await refused('delete an unknown group', scenario.GROUP_ID_NOT_FOUND, admin.deleteGroups({ groups: [GROUP] }))
  const alter = (name, offset) =>
    admin.alterConsumerGroupOffsets({ groupId: GROUP, topics: [{ name, partitionOffsets: [{ partition: 1, offset }] }] })
  await alter(TOPIC, 7n)
  const [{ topics }] = await admin.listConsumerGroupOffsets({ groups: [GROUP] })
  assert.deepEqual([topics[0].name, topics[0].partitions[0].partitionIndex], [TOPIC, 1])
  assert.equal(topics[0].partitions[0].committedOffset, 7n)
  const [group] = await listed({ states: ['EMPTY'], types: ['classic'] })
  assert.deepEqual([group.id, group.groupType, group.protocolType], [GROUP, 'classic', ''])
  const described = (await admin.describeGroups({ groups: [GROUP], includeAuthorizedOperations: true })).get(GROUP)
  assert.deepEqual([described.state, described.members.size], ['Empty', 0])
  await refused('commit to nothing', scenario.UNKNOWN_TOPIC_OR_PARTITION, alter('nothing', 1n))
  await admin.deleteConsumerGroupOffsets({ groupId: GROUP, topics: [{ name: TOPIC, partitionIndexes: [1] }] })
  // Kafka forgets an empty group with its last offset.
  await refused('what is gone with its offsets', scenario.GROUP_ID_NOT_FOUND, admin.deleteGroups({ groups: [GROUP] }))

  const consumer = new kafka.Consumer({ ...options, groupId: GROUP })
  const stream = await consumer.consume({ topics: [TOPIC] })
  const living = (await admin.describeGroups({ groups: [GROUP] })).get(GROUP)
  assert.deepEqual([living.state, living.protocol], ['Stable', 'roundrobin'])
  const [member] = living.members.values()
  assert.deepEqual([member.clientId, member.clientHost], ['somebody', '/127.0.0.1'])
  assert.deepEqual(member.assignments.get(TOPIC).partitions, [0, 1, 2, 3, 4])
  await refused('delete a living group', scenario.NON_EMPTY_GROUP, admin.deleteGroups({ groups: [GROUP] }))
  await stream.close()
  await consumer.close(true)
  await admin.deleteGroups({ groups: [GROUP] }).catch(error => assert.deepEqual(codesOf(error), [scenario.GROUP_ID_NOT_FOUND]))
  assert.deepEqual(await listed(), [])
}

async function quotas() {
  const described = async () => {
    const components = [{ entityType: 'client-id', matchType: kafka.ClientQuotaMatchTypes.EXACT, match: 'limited' }]
    const entries = await admin.describeClientQuotas({ components })
    return entries.map(({ entity, values }) => [entity.map(part => [part.entityType, part.entityName]), values])
  }
  const alter = (key, value, remove = false) => {
    const entities = [{ entityType: 'client-id', entityName: 'limited' }]
    return admin.alterClientQuotas({ entries: [{ entities, ops: [{ key, value, remove }] }] })
  }
  assert.deepEqual(await described(), [])
  await alter('producer_byte_rate', 1_000_000)
  assert.deepEqual(await described(), [[[['client-id', 'limited']], [{ key: 'producer_byte_rate', value: 1_000_000 }]]])
  await refused('an unknown quota', scenario.INVALID_REQUEST, alter('no_such_rate', 1))
  await alter('producer_byte_rate', 0, true)
  assert.deepEqual(await described(), [])
}

async function acls() {
  const acl = {
    resourceType: kafka.ResourceTypes.TOPIC,
    resourceName: TOPIC,
    resourcePatternType: kafka.ResourcePatternTypes.LITERAL,
    principal: 'User:u',
    host: '*',
    operation: kafka.AclOperations.READ,
    permissionType: kafka.AclPermissionTypes.ALLOW
  }
  await refused('createAcls', scenario.SECURITY_DISABLED, admin.createAcls({ creations: [acl] }))
  await refused('describeAcls', scenario.SECURITY_DISABLED, admin.describeAcls({ filter: acl }))
  await refused('deleteAcls', scenario.SECURITY_DISABLED, admin.deleteAcls({ filters: [acl] }))
}

async function deleteTopics() {
  await admin.deleteTopics({ topics: [TOPIC] })
  assert.deepEqual(await admin.listTopics(), [])
  await refused('delete again', scenario.UNKNOWN_TOPIC_OR_PARTITION, admin.deleteTopics({ topics: [TOPIC] }))
}

scenario
  .run([topics, configs, offsets, alter, deleteRecords, logDirs, groups, quotas, acls, deleteTopics])
  .finally(() => admin.close())
