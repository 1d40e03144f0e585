// kafkajs's transactions: see transacting.py.
'use strict'

const assert = require('node:assert/strict')
const { Kafka, logLevel } = require('kafkajs')
const scenario = require('./admin.js')

const INPUTS = 90
const A_TRANSACTION = 10
const retry = { retries: 20, initialRetryTime: 100, maxRetryTime: 1000 }
const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.NOTHING, retry })
const admin = kafka.admin()

async function producer(transactionalId, options = {}) {
  const made = kafka.producer(transactionalId ? { transactionalId, maxInFlightRequests: 1, idempotent: true, ...options } : {})
  await made.connect()
  return made
}

const send = (sender, topic, ...values) =>
  sender.send({ topic, messages: values.map(value => ({ value, partition: 0 })) })

// Resolves with the values in partition 0 of the topic, as soon as `enough` says so.
async function seen(topic, enough, readUncommitted = false) {
  const groupId = `seen.${topic}.${Math.random()}`
  const reader = kafka.consumer({ groupId, readUncommitted, maxWaitTimeInMs: 100 })
  await reader.connect()
  await reader.subscribe({ topics: [topic], fromBeginning: true })
  const values = []
  await new Promise((resolve, reject) => {
    reader
      .run({
        eachMessage: async ({ message }) => {
          values.push(message.value.toString())
          if (enough(values)) resolve()
        }
      })
      .catch(reject)
  })
  await reader.disconnect()
  return values
}

const upTo = last => values => values.at(-1) === last

async function ends() {
  const sender = await producer('ends')
  for (const [values, commit] of [[['a', 'b'], true], [['c'], false], [['d'], true], [['e'], false], [['f'], true]]) {
    const transaction = await sender.transaction()
    await send(transaction, 'ends', ...values)
    await (commit ? transaction.commit() : transaction.abort())
  }
  assert.deepEqual(await seen('ends', upTo('f')), ['a', 'b', 'd', 'f'])
  assert.deepEqual(await seen('ends', upTo('f'), true), ['a', 'b', 'c', 'd', 'e', 'f'])
  await sender.disconnect()
}

async function fence() {
  const [old, younger] = [await producer('fence'), await producer('fence')]
  const first = await old.transaction()
  await send(first, 'fence', 'old')
  const second = await younger.transaction()
  await send(second, 'fence', 'new')
  await assert.rejects(first.commit())
  await second.commit()
  assert.deepEqual(await seen('fence', upTo('new')), ['new'])
  await old.disconnect()
  await younger.disconnect()
}

async function committed(groupId, topic) {
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
  return Number(partitions[0].offset)
}

async function offsets() {
  const [sender, plain] = [await producer('offsets'), await producer()]
  await send(plain, 'offsets', ...Array.from({ length: 9 }, (_, number) => String(number)))
  for (const [offset, commit, after] of [[3, true, 3], [5, false, 3], [7, true, 7]]) {
    const transaction = await sender.transaction()
    const topics = [{ topic: 'offsets', partitions: [{ partition: 0, offset: String(offset) }] }]
    await transaction.sendOffsets({ consumerGroupId: 'offsets.group', topics })
    await (commit ? transaction.commit() : transaction.abort())
    // It asks in a version that knows nothing of pending offsets.
    while (commit && (await committed('offsets.group', 'offsets')) !== after);
    assert.equal(await committed('offsets.group', 'offsets'), after)
  }
  await sender.disconnect()
  await plain.disconnect()
}

async function timeout() {
  const [sender, plain] = [await producer('timeout', { transactionTimeout: 1000 }), await producer()]
  const transaction = await sender.transaction()
  await send(transaction, 'timeout', 'late')
  await send(plain, 'timeout', 'behind')
  assert.deepEqual(await seen('timeout', upTo('behind')), ['behind'])
  await assert.rejects(transaction.commit())
  await sender.disconnect()
  await plain.disconnect()
}

async function loop() {
  const [sender, plain] = [await producer('loop'), await producer()]
  const inputs = Array.from({ length: INPUTS }, (_, number) => String(number))
  await send(plain, 'loop.in', ...inputs)
  const reader = kafka.consumer({ groupId: 'loop.group', maxWaitTimeInMs: 100 })
  await reader.connect()
  await reader.subscribe({ topics: ['loop.in'], fromBeginning: true })
  let [turn, done] = [0, 0]
  await new Promise((resolve, reject) => {
    const eachBatch = async ({ batch: { messages } }) => {
      while (done < INPUTS) {
        const taken = messages.filter(({ offset }) => Number(offset) >= done).slice(0, A_TRANSACTION)
        if (taken.length === 0) return
        const transaction = await sender.transaction()
        await send(transaction, 'loop.out', ...taken.map(({ value }) => value))
        const read = [{ partition: 0, offset: String(done + taken.length) }]
        await transaction.sendOffsets({ consumerGroupId: 'loop.group', topics: [{ topic: 'loop.in', partitions: read }] })
        if (++turn % 3 === 1) {
          await transaction.abort()
        } else {
          await transaction.commit()
          done += taken.length
        }
      }
      resolve()
    }
    reader.run({ autoCommit: false, eachBatch }).catch(reject)
  })
  assert.deepEqual(await seen('loop.out', upTo(inputs.at(-1))), inputs)
  for (const client of [reader, sender, plain]) await client.disconnect()
}

admin
  .connect()
  .then(() => scenario.run([ends, fence, offsets, timeout, loop]))
  .finally(() => admin.disconnect())
