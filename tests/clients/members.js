// The words of members.py, for the clients that run on Node.
'use strict'

const fs = require('node:fs')

const SESSION_MS = 6000
const HEARTBEAT_MS = 500
const now = () => (performance.timeOrigin + performance.now()) / 1000

// Written at once: a member may be killed after any line.
const emit = (e, fields) => fs.writeSync(1, JSON.stringify({ t: now(), e, ...fields }) + '\n')

class Log {
  owned = new Set()

  // Makes `partitions` all that is owned.
  own(partitions) {
    this.revoked([...this.owned].filter(partition => !partitions.includes(partition)))
    const added = partitions.filter(partition => !this.owned.has(partition))
    if (added.length > 0) emit('assigned', { p: added })
    this.owned = new Set(partitions)
  }

  revoked(partitions = [...this.owned]) {
    for (const partition of partitions) this.owned.delete(partition)
    if (partitions.length > 0) emit('revoked', { p: partitions })
  }

  // Offsets of one partition in the order in which they came.
  read(partition, offsets) {
    let first = offsets[0]
    offsets.forEach((offset, at) => {
      if (offsets[at + 1] === offset + 1) return
      emit('read', { p: partition, o: [first, offset] })
      first = offsets[at + 1]
    })
  }

  // Commits {partition: offset} by the function `commit`; says what came of it, and throws what it threw.
  async commit(offsets, commit) {
    const sent = now()
    try {
      await commit()
    } catch (error) {
      emit('refused', { why: String(error.stack ?? error) })
      throw error
    }
    emit('committed', { sent, o: offsets })
  }

  fatal(error) {
    emit('fatal', { why: String(error.stack ?? error) })
    process.exit(3)
  }
}

// Resolves when the standard input has ended: a member then leaves.
const stopped = () => new Promise(resolve => process.stdin.on('end', resolve).resume())

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

const options = texts => Object.fromEntries(texts.map(text => text.split(/=(.*)/s, 2)))

module.exports = { SESSION_MS, HEARTBEAT_MS, Log, stopped, pause, options }
