"""aiokafka: see loops.py for the verbs.

It does not tell the broker its member and generation with its offsets (KIP-447), so a partition may have one
transactional id only, as before KIP-447: its processors read partitions of their own.
"""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

import loops
from aiokafka_start import started


async def process(bootstrap, group, source, sinks, partitions, work, transactional_id, own):
    conf = {"bootstrap_servers": bootstrap}
    ids = {"transactional_id": transactional_id, "transaction_timeout_ms": loops.TRANSACTION_MS_MAX}
    # This aborts what its last life left open, or waits for its end; only then are the offsets of the group the right ones.
    producer = await started(lambda: AIOKafkaProducer(**conf, **ids))
    conf.update(group_id=group, enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed")
    consumer = await started(lambda: AIOKafkaConsumer(**conf))
    places = [TopicPartition(source, partition) for partition in own]
    consumer.assign(places)

    async def rewind():
        for place in places:
            consumer.seek(place, await consumer.committed(place) or 0)

    await rewind()
    while not work.stopped:
        polled = await consumer.getmany(timeout_ms=200, max_records=work.take())
        inputs = [(place.partition, message.offset) for place, messages in polled.items() for message in messages]
        if not inputs:
            continue
        work.begin()
        try:
            await producer.begin_transaction()
            sends = [
                await producer.send(sink, loops.value(work.transaction, *input_), partition=input_[1] % partitions)
                for input_ in inputs
                for sink in sinks
            ]
            await asyncio.gather(*sends)
            ends = {place: messages[-1].offset + 1 for place, messages in polled.items()}
            await producer.send_offsets_to_transaction(ends, group)
            if work.ending(inputs):
                await producer.commit_transaction()
                work.committed()
                continue
        except KafkaError as error:
            work.failed(error)
        await producer.abort_transaction()
        work.aborted()
        await rewind()
    await consumer.stop()
    await producer.stop()


async def observe(bootstrap, isolation, places, stopped):
    conf = {"bootstrap_servers": bootstrap, "isolation_level": isolation, "auto_offset_reset": "earliest"}
    consumer = await started(lambda: AIOKafkaConsumer(**conf))
    places = [TopicPartition(*place) for place in places]
    consumer.assign(places)
    positions = {}
    while not stopped:
        polled = await consumer.getmany(timeout_ms=100)
        loops.seen(
            [[*place, message.offset, message.value.decode()] for place, messages in polled.items() for message in messages]
        )
        now = {place: await consumer.position(place) for place in places}
        loops.at([[*place, offset] for place, offset in now.items() if positions.get(place) != offset])
        positions = now
    await consumer.stop()


def run(verb):
    def attempt(*args):
        try:
            asyncio.run(verb(*args))
        except KafkaError as error:
            loops.fatal(error)

    return attempt


loops.main(run(process), run(observe))
