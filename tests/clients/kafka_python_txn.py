"""kafka-python's transactions: see transacting.py."""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from admin import *
from transacting import *

bootstrap = sys.argv[1]


def producer(name=None, **conf):
    made = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name, **conf)
    if name:
        made.init_transactions()
    return made


def consumer(*topics, group=None, isolation="read_committed"):
    conf = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "isolation_level": isolation}
    return KafkaConsumer(*topics, bootstrap_servers=bootstrap, group_id=group, **conf)


def send(sender, topic, *values):
    for value in values:
        sender.send(topic, value, partition=0)
    sender.flush(30)


def seen(topic, isolation="read_committed"):
    """The values in partition 0 of the topic, up to where a reader of this isolation level gets."""
    place, reader = TopicPartition(topic, 0), consumer(isolation=isolation)
    reader.assign([place])
    end = reader.end_offsets([place])[place]
    reader.seek_to_beginning(place)
    values = []
    while reader.position(place) < end:
        for messages in reader.poll(timeout_ms=1000).values():
            values += [message.value for message in messages]
    reader.close()
    return values


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
        (sender.commit_transaction if commit else sender.abort_transaction)()
    sender.begin_transaction()
    send(sender, "ends", b"e")
    come_to_see("ends", [b"a", b"b", b"d"])
    equal("all", seen("ends", "read_uncommitted"), [b"a", b"b", b"c", b"d", b"e"])
    sender.commit_transaction()
    come_to_see("ends", [b"a", b"b", b"d", b"e"])
    sender.close()


def fence():
    old = producer("fence")
    old.begin_transaction()
    send(old, "fence", b"old")
    new = producer("fence")
    try:
        old.commit_transaction()
    except KafkaError:
        pass
    else:
        raise AssertionError("the old one committed")
    new.begin_transaction()
    send(new, "fence", b"new")
    new.commit_transaction()
    come_to_see("fence", [b"new"])
    new.close()


def offsets():
    sender, plain = producer("offsets"), producer()
    send(plain, "offsets", *[b"%d" % number for number in range(9)])
    place, reader = TopicPartition("offsets", 0), consumer(group="offsets.group")
    for offset, commit, after in [(3, True, 3), (5, False, 3), (7, True, 7)]:
        sender.begin_transaction()
        sender.send_offsets_to_transaction({place: OffsetAndMetadata(offset, "", -1)}, "offsets.group")
        (sender.commit_transaction if commit else sender.abort_transaction)()
        equal(f"committed after {offset}", reader.committed(place), after)
    for client in [sender, plain, reader]:
        client.close()


def timeout():
    sender, plain = producer("timeout", transaction_timeout_ms=1000), producer()
    sender.begin_transaction()
    send(sender, "timeout", b"late")
    send(plain, "timeout", b"behind")
    while not (found := seen("timeout")):
        pass
    equal("committed", found, [b"behind"])
    try:
        sender.commit_transaction()
    except KafkaError:
        return equal("committed", seen("timeout"), [b"behind"])
    raise AssertionError("it was committed")


def loop():
    sender, plain = producer("loop"), producer()
    inputs = [b"%d" % number for number in range(INPUTS)]
    send(plain, "loop.in", *inputs)
    reader = consumer("loop.in", group="loop.group")
    place, turn, done = TopicPartition("loop.in", 0), 0, 0
    while done < INPUTS:
        messages = reader.poll(timeout_ms=1000, max_records=A_TRANSACTION).get(place)
        if not messages:
            continue
        sender.begin_transaction()
        send(sender, "loop.out", *[message.value for message in messages])
        read = {place: OffsetAndMetadata(done + len(messages), "", -1)}
        sender.send_offsets_to_transaction(read, "loop.group")
        turn += 1
        if is_aborted(turn):
            sender.abort_transaction()
            reader.seek(place, done)
        else:
            sender.commit_transaction()
            done += len(messages)
    come_to_see("loop.out", inputs)
    for client in [sender, plain, reader]:
        client.close()


run(ends, fence, offsets, timeout, loop)
