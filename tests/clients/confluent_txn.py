"""confluent-kafka's transactions (librdkafka): see transacting.py."""

import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from admin import *
from transacting import *

bootstrap = sys.argv[1]
SECONDS_MAX = 30


def producer(name, **conf):
    made = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, **conf})
    made.init_transactions(SECONDS_MAX)
    return made


def consumer(group="unused", isolation="read_committed"):
    conf = {"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": isolation}
    return Consumer({**conf, "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "earliest"})


def send(sender, topic, *values):
    for value in values:
        sender.produce(topic, value, partition=0)
    equal("unsent", sender.flush(SECONDS_MAX), 0)


def seen(topic, isolation="read_committed"):
    """The values in partition 0 of the topic, up to where a reader of this isolation level gets."""
    reader = consumer(isolation=isolation)
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values = []
    while (message := reader.poll(SECONDS_MAX)) is not None:
        if message.error():
            equal("error", message.error().code(), KafkaError._PARTITION_EOF)
            reader.close()
            return values
        values.append(message.value())
    raise AssertionError("no end of the partition")


def come_to_see(topic, wanted):
    """Readers of what is committed see this, and nothing else on the way."""
    enough = settled(wanted)
    while not enough(found := seen(topic)):
        pass
    equal(f"committed to {topic}", found, wanted)


def ends():
    sender = producer("ends")
    for values, commit in [([b"a", b"b"], True), ([b"c"], False), ([b"d"], True)]:
        sender.begin_transaction()
        send(sender, "ends", *values)
        (sender.commit_transaction if commit else sender.abort_transaction)(SECONDS_MAX)
    sender.begin_transaction()
    send(sender, "ends", b"e")
    come_to_see("ends", [b"a", b"b", b"d"])
    equal("all", seen("ends", "read_uncommitted"), [b"a", b"b", b"c", b"d", b"e"])
    sender.commit_transaction(SECONDS_MAX)
    come_to_see("ends", [b"a", b"b", b"d", b"e"])


def fence():
    old = producer("fence")
    old.begin_transaction()
    send(old, "fence", b"old")
    new = producer("fence")
    try:
        old.commit_transaction(SECONDS_MAX)
    except KafkaException as error:
        equal(f"fatal {error!r}", error.args[0].fatal(), True)
        fenced = KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH
        equal(f"fenced {error!r}", error.args[0].code() in fenced, True)
    else:
        raise AssertionError("the old one committed")
    new.begin_transaction()
    send(new, "fence", b"new")
    new.commit_transaction(SECONDS_MAX)
    come_to_see("fence", [b"new"])


def offsets():
    sender, reader = producer("offsets"), consumer("offsets.group")
    place = TopicPartition("offsets", 0)
    plain = Producer({"bootstrap.servers": bootstrap})
    send(plain, "offsets", *[b"%d" % number for number in range(9)])
    for offset, commit, after in [(3, True, 3), (5, False, 3), (7, True, 7)]:
        sender.begin_transaction()
        sender.send_offsets_to_transaction(
            [TopicPartition("offsets", 0, offset)], reader.consumer_group_metadata(), SECONDS_MAX
        )
        (sender.commit_transaction if commit else sender.abort_transaction)(SECONDS_MAX)
        equal(f"committed after {offset}", reader.committed([place], SECONDS_MAX)[0].offset, after)
    reader.close()


def timeout():
    sender, plain = producer("timeout", **{"transaction.timeout.ms": 1000}), Producer({"bootstrap.servers": bootstrap})
    sender.begin_transaction()
    send(sender, "timeout", b"late")
    send(plain, "timeout", b"behind")
    while not (found := seen("timeout")):
        pass
    equal("committed", found, [b"behind"])
    try:
        sender.commit_transaction(SECONDS_MAX)
    except KafkaException:
        return equal("committed", seen("timeout"), [b"behind"])
    raise AssertionError("it was committed")


def loop():
    plain, sender, reader = Producer({"bootstrap.servers": bootstrap}), producer("loop"), consumer("loop.group")
    inputs = [b"%d" % number for number in range(INPUTS)]
    send(plain, "loop.in", *inputs)
    reader.subscribe(["loop.in"])
    turn, done = 0, 0
    while done < INPUTS:
        messages = [m for m in reader.consume(A_TRANSACTION, timeout=1) if not m.error()]
        if not messages:
            continue
        sender.begin_transaction()
        send(sender, "loop.out", *[message.value() for message in messages])
        sender.send_offsets_to_transaction(
            reader.position(reader.assignment()), reader.consumer_group_metadata(), SECONDS_MAX
        )
        turn += 1
        if is_aborted(turn):
            sender.abort_transaction(SECONDS_MAX)
            for place in reader.committed(reader.assignment(), SECONDS_MAX):
                reader.seek(TopicPartition(place.topic, place.partition, max(place.offset, 0)))
        else:
            sender.commit_transaction(SECONDS_MAX)
            done += len(messages)
    come_to_see("loop.out", inputs)
    reader.close()


run(ends, fence, offsets, timeout, loop)
