// @platformatic/kafka: see records.py for the verbs produce and member.
'use strict'

const { Consumer, Producer } = require('@platformatic/kafka')
const { read, runs, main } = require('./records.js')
const members = require('./members.js')

async function produce(bootstrap, topic, compression, idempotent) {
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
}

async function member(bootstrap, groupId, topic, ...texts) {
  const { protocol, assignor } = members.options(texts)
  const classic = { sessionTimeout: members.SESSION_MS, rebalanceTimeout: 60_000, heartbeatInterval: members.HEARTBEAT_MS }
  const consumer = new Consumer({
    clientId: 'ottla-test',
    groupId,
    bootstrapBrokers: [bootstrap],
    // Its refused commit joins the group anew and is sent again, as often as there are retries, and so does its refused
    // heartbeat. A leader's join begins a rebalance; so the one's join makes the broker refuse the other one's request,
    // in turn, until the commit gives up.
    retries: 10,
    retryDelay: 1000,
    maxWaitTime: 200,
    autocommit: false,
    ...(protocol === 'classic'
      ? { ...classic, protocols: [{ name: assignor, version: 1 }] }
      : { groupProtocol: 'consumer', groupRemoteAssignor: assignor })
  })
  const log = new members.Log()
  let stopped = false
  // To leave in the middle of a join is an error to it.
  consumer.on('error', error => stopped || log.fatal(error))
  // It reads on while it rebalances. In the new protocol no event tells of changes, and in neither one of losses.
  let leaving = false
  const owned = () => consumer.assignments?.find(assignment => assignment.topic === topic)?.partitions ?? []
  const own = () => leaving || log.own(owned())
  if (protocol === 'classic') consumer.on('consumer:group:join', own)
  else setInterval(own, 20)

  let pending = new Map()
  const commit = async () => {
    const due = [...pending].filter(([partition]) => log.owned.has(partition))
    pending = new Map()
    const offsets = due.map(([partition, { offset, leaderEpoch }]) => ({ topic, partition, offset: BigInt(offset), leaderEpoch }))
    const plain = Object.fromEntries(due.map(([partition, { offset }]) => [partition, offset]))
    if (due.length === 0) return
    await log.commit(plain, () => consumer.commit({ offsets })).catch(() => {
      // What is its own even so is committed with what comes. The pause lets a heartbeat pass.
      for (const [partition, position] of due) if (!pending.has(partition)) pending.set(partition, position)
      return members.pause(2000)
    })
  }
  const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false })
  stream.on('error', error => log.fatal(error))
  stream.on('data', ({ partition, offset, leaderEpoch }) => {
    if (protocol === 'consumer') own()
    if (!log.owned.has(partition)) return
    log.read(partition, [Number(offset)])
    pending.set(partition, { offset: Number(offset) + 1, leaderEpoch })
  })
  const asked = members.stopped().then(() => (stopped = true))
  const committing = async () => {
    while (!stopped) {
      await commit()
      await members.pause(100)
    }
    await commit()
  }
  // A commit that joins again and again is not waited for.
  await Promise.race([committing(), asked.then(() => members.pause(5000))])
  leaving = true
  log.revoked()
  await consumer.close(true)
  process.exit(0)
}

main(produce, member)
