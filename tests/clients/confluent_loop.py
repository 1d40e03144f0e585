"""confluent-kafka (librdkafka): see loops.py for the verbs. Its calls go on after errors as its manual says."""

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

import members
import loops

SECONDS_MAX = 10


def again(call):
    """Calls until there is an answer, however long the broker is away."""
    while True:
        try:
            return call()
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() != KafkaError._TIMED_OUT:
                raise
            members.emit("again", why=repr(error))


def process(bootstrap, group, source, sinks, partitions, work, transactional_id, _own):
    conf = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 500}
    # A coordinator that librdkafka forgets when it bootstraps again makes it wait for ever for its place to commit offsets
    # (LRK#5511), whatever the time-out (LRK#5456).
    conf["metadata.recovery.strategy"] = "none"
    ids = {"transactional.id": transactional_id, "transaction.timeout.ms": loops.TRANSACTION_MS_MAX}
    producer = Producer({**conf, **ids, "linger.ms": 2})
    conf.update({"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    conf.update({"session.timeout.ms": members.SESSION_MS, "heartbeat.interval.ms": members.HEARTBEAT_MS})
    consumer = Consumer({**conf, "isolation.level": "read_committed"})

    def transact(messages):
        """Whether the transaction was committed; an error that is raised says that it was not."""
        producer.begin_transaction()
        ends = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            for sink in sinks:
                producer.produce(
                    sink, loops.value(work.transaction, partition, offset), partition=offset % partitions
                )
            ends[partition] = offset + 1
        offsets = [TopicPartition(source, *place) for place in ends.items()]
        again(lambda: producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), SECONDS_MAX))
        if work.ending([[message.partition(), message.offset()] for message in messages]):
            again(lambda: producer.commit_transaction(SECONDS_MAX))
            return True
        return False

    def rewind():
        """Goes on from what is committed, in whatever partitions it has."""
        owned = consumer.assignment()
        for place in again(lambda: consumer.committed(owned, SECONDS_MAX)) if owned else []:
            place.offset = max(place.offset, 0)
            try:
                consumer.seek(place)
            except KafkaException as error:
                # It has lost the partition meanwhile.
                if error.args[0].code() != KafkaError._STATE:
                    raise

    try:
        again(lambda: producer.init_transactions(SECONDS_MAX))
        consumer.subscribe([source])
        while not work.stopped:
            messages = [message for message in consumer.consume(work.take(), timeout=0.2) if not message.error()]
            if not messages:
                continue
            work.begin()
            try:
                if transact(messages):
                    work.committed()
                    continue
            except KafkaException as error:
                work.failed(error)
                if error.args[0].fatal():
                    raise
            # librdkafka's abort takes the sequences of all that has no answer yet for unused (rd_kafka_toppar_purge_queues
            # advances epoch_base_msgid), also of what it sent before its connection was lost: the broker may have that, and
            # finds the next transaction out of order. So nothing may be without an answer.
            if producer.flush(SECONDS_MAX):
                return members.emit("quit")
            again(lambda: producer.abort_transaction(SECONDS_MAX))
            work.aborted()
            rewind()
        consumer.close()
    except KafkaException as error:
        loops.fatal(error)


def observe(bootstrap, isolation, places, stopped):
    conf = {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False}
    conf.update({"isolation.level": isolation, "enable.partition.eof": True, "reconnect.backoff.max.ms": 500})
    consumer = Consumer(conf)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in places])
    while not stopped:
        records, ends = [], []
        for message in consumer.consume(500, timeout=0.1):
            place = [message.topic(), message.partition(), message.offset()]
            if message.error() is None:
                records.append([*place, message.value().decode()])
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ends.append(place)
        loops.seen(records)
        loops.at(ends)
    consumer.close()


loops.main(process, observe)
