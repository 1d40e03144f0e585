// @platformatic/kafka: see records.py for the verb.
'use strict'

const { Producer } = require('@platformatic/kafka')
const { read, runs, main } = require('./records.js')

main(async (bootstrap, topic, compression, idempotent) => {
  const producer = new Producer({
    clientId: 'ottla-test',
    bootstrapBrokers: [bootstrap],
    autocreateTopics: true,
    ...(idempotent ? { idempotent } : {})
  })
  for (const run of runs(read())) {
    const messages = run.map(record => ({
      topic,
      key: record.key,
      value: record.value,
      // A Map keyed by distinct buffers keeps names that stand twice.
      headers: new Map(record.headers.map(([name, value]) => [Buffer.from(name), value])),
      ...(record.timestamp === undefined ? {} : { timestamp: BigInt(record.timestamp) })
    }))
    await producer.send({ messages, compression })
  }
  await producer.close()
})
