"""aiokafka: see records.py for the verbs."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

import records


async def produce(bootstrap, topic, codec, idempotent):
    conf = {} if codec == "none" else {"compression_type": codec}
    if idempotent:
        conf["enable_idempotence"] = True
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **conf) as producer:
        sent = [
            await producer.send(topic, value, key=key, headers=headers, timestamp_ms=timestamp)
            for key, value, headers, timestamp in records.read()
        ]
        await asyncio.wait_for(asyncio.gather(*sent), 60)


async def consume(bootstrap, topics):
    conf = {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    # Topics without a group: the client assigns itself all their partitions.
    async with AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, **conf) as consumer:
        assigned = sorted(consumer.assignment())
        ends = await consumer.end_offsets(assigned)
        starts = await consumer.beginning_offsets(assigned)
        owed = {place for place in assigned if starts[place] < ends[place]}
        while owed:
            polled = await consumer.getmany(timeout_ms=30_000, max_records=1000)
            if not polled:
                sys.exit(f"nothing came for 30 seconds; still owed: {owed}")
            for place, messages in polled.items():
                for m in messages:
                    records.write(m.topic, m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)
                if messages[-1].offset + 1 >= ends[place]:
                    owed.discard(place)


records.main(lambda *args: asyncio.run(produce(*args)), lambda *args: asyncio.run(consume(*args)))
