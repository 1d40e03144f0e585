"""aiokafka: see records.py for the verbs."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

import members
import records
from aiokafka_start import started


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


async def member(bootstrap, group, topic, *options):
    options = members.options(options)
    assignors = [RangePartitionAssignor, RoundRobinPartitionAssignor]
    conf = dict(
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id=options.get("instance"),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=members.SESSION_MS,
        heartbeat_interval_ms=members.HEARTBEAT_MS,
        partition_assignment_strategy=[assignor for assignor in assignors if assignor.name == options["assignor"]],
    )
    log = members.Log()

    async def commit():
        due, sent = log.due()
        if not due:
            return
        try:
            await consumer.commit({TopicPartition(topic, p): offset for p, offset in due.items()})
            log.committed(due, sent)
        except KafkaError as error:
            log.refused(error)

    class Listener(ConsumerRebalanceListener):
        async def on_partitions_assigned(self, assigned):
            log.assigned([place.partition for place in assigned])

        async def on_partitions_revoked(self, revoked):
            await commit()
            log.revoked([place.partition for place in revoked])

    def make():
        made = AIOKafkaConsumer(**conf)
        made.subscribe([topic], listener=Listener())
        return made

    consumer = await started(make)
    while not log.stopped:
        polled = await consumer.getmany(timeout_ms=200)
        for place, messages in polled.items():
            log.read(place.partition, [message.offset for message in messages])
        await commit()
    await consumer.stop()


def run(verb):
    return lambda *args: asyncio.run(verb(*args))


records.main(run(produce), run(consume), run(member))
