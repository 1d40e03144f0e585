// kafkajs: see records.py for the verbs; it consumes in a group, which is one of its own. Its codecs beside gzip are plugins, as its manual says.
'use strict'

const zlib = require('node:zlib')
const { Kafka, CompressionTypes, CompressionCodecs, PartitionAssigners, logLevel } = require('kafkajs')
const Lz4Codec = require('@2l/kafkajs-lz4')
const SnappyCodec = require('kafkajs-snappy')
const { read, write, runs, main } = require('./records.js')
const members = require('./members.js')

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = new Lz4Codec().codec
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => zlib.zstdCompressSync(encoder.buffer),
  decompress: async buffer => zlib.zstdDecompressSync(buffer)
})
const codecs = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }

// kafkajs takes headers as an object; a name that stands twice has an array of values.
function headersOf(pairs) {
  const headers = {}
  for (const [name, value] of pairs) headers[name] = name in headers ? [headers[name], value].flat() : value
  return headers
}

async function produce(bootstrap, topic, codec, idempotent) {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.WARN })
  const producer = kafka.producer(idempotent ? { idempotent } : {})
  await producer.connect()
  for (const run of runs(read())) {
    const messages = run.map(record => ({
      key: record.key,
      value: record.value,
      headers: headersOf(record.headers),
      ...(record.timestamp === undefined ? {} : { timestamp: String(record.timestamp) })
    }))
    await producer.send({ topic, messages, compression: CompressionTypes[codecs[codec]] })
  }
  await producer.disconnect()
}

async function consume(bootstrap, topics) {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.WARN })
  const admin = kafka.admin()
  await admin.connect()
  const owed = new Map()
  for (const topic of topics) {
    for (const { partition, low, high } of await admin.fetchTopicOffsets(topic)) {
      if (Number(high) > Number(low)) owed.set(`${topic} ${partition}`, Number(high))
    }
  }
  await admin.disconnect()
  const consumer = kafka.consumer({ groupId: `consume-${process.pid}-${Date.now()}`, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topics, fromBeginning: true })
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    const eachBatch = async ({ batch: { topic, partition, messages } }) => {
      for (const message of messages) write(topic, partition, message)
      const place = `${topic} ${partition}`
      if (Number(messages.at(-1).offset) + 1 >= owed.get(place)) owed.delete(place)
      if (owed.size === 0) resolve()
    }
    consumer.run({ autoCommit: false, eachBatch }).catch(reject)
  })
  await consumer.disconnect()
}

async function member(bootstrap, groupId, topic, ...texts) {
  const { assignor } = members.options(texts)
  // Its one assigner is the usual round robin under a name of its own; in a mixed group it goes by the others' name.
  const assigner = config => ({ ...PartitionAssigners.roundRobin(config), name: assignor })
  const retry = { retries: 20, initialRetryTime: 100, maxRetryTime: 1000 }
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING, retry })
  const consumer = kafka.consumer({
    groupId,
    partitionAssigners: [assigner],
    sessionTimeout: members.SESSION_MS,
    heartbeatInterval: members.HEARTBEAT_MS,
    maxWaitTimeInMs: 200
  })
  const log = new members.Log()
  // It reads on until it has joined again, and then starts anew from what is committed.
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    log.revoked()
    log.own(payload.memberAssignment[topic] ?? [])
  })
  consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || log.fatal(payload.error))
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch: { partition, messages }, isRunning, isStale }) => {
      if (!isRunning() || isStale()) return
      const offsets = messages.map(message => Number(message.offset))
      log.read(partition, offsets)
      const offset = offsets.at(-1) + 1
      await log.commit({ [partition]: offset }, () =>
        consumer.commitOffsets([{ topic, partition, offset: String(offset) }])
      )
    }
  })
  await members.stopped()
  // After lost connections it may have left its group, at once, and still not end, in its own timers. Of the other
  // clients an end is wanted; of this one, that the group is empty.
  await Promise.race([consumer.disconnect(), members.pause(10_000)])
  process.exit(0)
}

main(produce, member, consume)
