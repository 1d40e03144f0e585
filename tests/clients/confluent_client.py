"""confluent-kafka (librdkafka): see records.py for the verbs."""

import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

import members
import records


def produce(bootstrap, topic, codec, idempotent):
    conf = {"bootstrap.servers": bootstrap, "compression.type": codec}
    if idempotent:
        conf["enable.idempotence"] = True
    producer = Producer(conf)

    def delivered(error, _message):
        if error is not None:
            sys.exit(f"not delivered: {error}")

    for key, value, headers, timestamp in records.read():
        stamp = {} if timestamp is None else {"timestamp": timestamp}
        while True:
            try:
                producer.produce(topic, value, key, headers=headers, on_delivery=delivered, **stamp)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(60) != 0:
        sys.exit("some records were not delivered in 60 seconds")


def consume(bootstrap, topics):
    # librdkafka wants a group.id even for assign(); no group API is called while nothing is committed or subscribed.
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    owed = {}
    for topic in topics:
        for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30, cached=False)
            if high > low:
                owed[topic, partition] = high
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in owed])
    patience = time.monotonic() + 30
    while owed:
        # consume() waits until it has as many as it was asked for, or for the whole time-out.
        messages = consumer.consume(1000, timeout=0.1)
        if messages:
            patience = time.monotonic() + 30
        elif time.monotonic() > patience:
            sys.exit(f"nothing came for 30 seconds; still owed: {owed}")
        for message in messages:
            if message.error():
                sys.exit(f"consume: {message.error()}")
            place = message.topic(), message.partition()
            records.write(
                *place, message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers()
            )
            if message.offset() + 1 >= owed.get(place, 0):
                owed.pop(place, None)
    consumer.close()


def member(bootstrap, group, topic, *options):
    options = members.options(options)
    conf = {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False}
    conf["auto.offset.reset"] = "earliest"
    if options["protocol"] == "classic":
        conf["partition.assignment.strategy"] = options["assignor"]
        conf.update({"session.timeout.ms": members.SESSION_MS, "heartbeat.interval.ms": members.HEARTBEAT_MS})
    else:
        # Session and heartbeat are the broker's to say.
        conf.update({"group.protocol": "consumer", "group.remote.assignor": options["assignor"]})
    if "instance" in options:
        conf["group.instance.id"] = options["instance"]
    consumer = Consumer(conf)
    log = members.Log()

    def commit():
        due, sent = log.due()
        if not due:
            return
        try:
            done = consumer.commit(offsets=[TopicPartition(topic, *place) for place in due.items()], asynchronous=False)
            errors = [place.error for place in done if place.error]
            log.refused(errors) if errors else log.committed(due, sent)
        except KafkaException as error:
            log.refused(error)

    def on_assign(_consumer, places):
        log.assigned([place.partition for place in places])

    def on_revoke(_consumer, places):
        commit()
        log.revoked([place.partition for place in places])

    def on_lost(_consumer, places):
        log.revoked([place.partition for place in places])

    consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
    while not log.stopped:
        read = {}
        for message in consumer.consume(500, timeout=0.2):
            error = message.error()
            if error is None:
                read.setdefault(message.partition(), []).append(message.offset())
            elif error.fatal() or error.code() == KafkaError._FATAL:
                log.fatal(error)
        for partition, offsets in read.items():
            log.read(partition, offsets)
        commit()
    consumer.close()


records.main(produce, consume, member)
