// kafkajs: see records.py for the verb. Its codecs beside gzip are plugins, as its manual says.
'use strict'

const zlib = require('node:zlib')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')
const Lz4Codec = require('@2l/kafkajs-lz4')
const SnappyCodec = require('kafkajs-snappy')
const { read, runs, main } = require('./records.js')

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

main(async (bootstrap, topic, codec, idempotent) => {
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
})
