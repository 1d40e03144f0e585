"""aiokafka's transactions: see transacting.py."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from admin import *
from transacting import *

bootstrap = sys.argv[1]


async def producer(name=None, **conf):
    made = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name, **conf)
    await made.start()
    return made


async def consumer(*topics, group=None, isolation="read_committed"):
    conf = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "isolation_level": isolation}
    made = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, group_id=group, **conf)
    await made.start()
    return made


async def send(sender, topic, *values):
    for value in values:
        await sender.send_and_wait(topic, value, partition=0)


async def seen(topic, isolation="read_committed"):
    """The values in partition 0 of the topic, up to where a reader of this isolation level gets."""
    place = TopicPartition(topic, 0)
    reader = await consumer(isolation=isolation)
    reader.assign([place])
    end = (await reader.end_offsets([place]))[place]
    await reader.seek_to_beginning(place)
    values = []
    while await reader.position(place) < end:
        for messages in (await reader.getmany(timeout_ms=1000)).values():
            values += [message.value for message in messages]
    await reader.stop()
    return values


async def come_to_see(topic, wanted):
    """Readers of what is committed see this, and nothing else on the way."""
    enough = settled(wanted)
    while not enough(found := await seen(topic)):
        pass
    equal(f"committed to {topic}", found, wanted)


async def ends():
    sender = await producer("ends")
    for values, commit in [([b"a", b"b"], True), ([b"c"], False), ([b"d"], True)]:
        await sender.begin_transaction()
        await send(sender, "ends", *values)
        await (sender.commit_transaction if commit else sender.abort_transaction)()
    await sender.begin_transaction()
    await send(sender, "ends", b"e")
    await come_to_see("ends", [b"a", b"b", b"d"])
    equal("all", await seen("ends", "read_uncommitted"), [b"a", b"b", b"c", b"d", b"e"])
    await sender.commit_transaction()
    await come_to_see("ends", [b"a", b"b", b"d", b"e"])
    await sender.stop()


async def fence():
    old = await producer("fence")
    await old.begin_transaction()
    await send(old, "fence", b"old")
    new = await producer("fence")
    try:
        await old.commit_transaction()
    except ProducerFenced:
        pass
    else:
        raise AssertionError("the old one committed")
    await new.begin_transaction()
    await send(new, "fence", b"new")
    await new.commit_transaction()
    await come_to_see("fence", [b"new"])
    await new.stop()


async def offsets():
    sender, plain = await producer("offsets"), await producer()
    await send(plain, "offsets", *[b"%d" % number for number in range(9)])
    place, reader = TopicPartition("offsets", 0), await consumer(group="offsets.group")
    for offset, commit, after in [(3, True, 3), (5, False, 3), (7, True, 7)]:
        await sender.begin_transaction()
        await sender.send_offsets_to_transaction({place: offset}, "offsets.group")
        await (sender.commit_transaction if commit else sender.abort_transaction)()
        # It asks in a version that knows nothing of pending offsets.
        while commit and await reader.committed(place) != after:
            pass
        equal(f"committed after {offset}", await reader.committed(place), after)
    for client in [sender, plain, reader]:
        await client.stop()


async def timeout():
    sender, plain = await producer("timeout", transaction_timeout_ms=1000), await producer()
    await sender.begin_transaction()
    await send(sender, "timeout", b"late")
    await send(plain, "timeout", b"behind")
    while not (found := await seen("timeout")):
        pass
    equal("committed", found, [b"behind"])
    try:
        await sender.commit_transaction()
    except KafkaError:
        return equal("committed", await seen("timeout"), [b"behind"])
    raise AssertionError("it was committed")


async def loop():
    sender, plain = await producer("loop"), await producer()
    inputs = [b"%d" % number for number in range(INPUTS)]
    await send(plain, "loop.in", *inputs)
    reader = await consumer("loop.in", group="loop.group")
    place, turn, done = TopicPartition("loop.in", 0), 0, 0
    while done < INPUTS:
        polled = await reader.getmany(place, timeout_ms=1000, max_records=A_TRANSACTION)
        messages = polled.get(place)
        if not messages:
            continue
        await sender.begin_transaction()
        await send(sender, "loop.out", *[message.value for message in messages])
        await sender.send_offsets_to_transaction({place: done + len(messages)}, "loop.group")
        turn += 1
        if is_aborted(turn):
            await sender.abort_transaction()
            reader.seek(place, done)
        else:
            await sender.commit_transaction()
            done += len(messages)
    await come_to_see("loop.out", inputs)
    for client in [sender, plain, reader]:
        await client.stop()


asyncio.run(run_async(ends, fence, offsets, timeout, loop))
