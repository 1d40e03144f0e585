"""kafka-python: see records.py for the verbs."""

import sys
import time

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import FencedInstanceIdError, KafkaConnectionError, KafkaError

import members
import records

ASSIGNORS = [CooperativeStickyAssignor, RangePartitionAssignor, RoundRobinPartitionAssignor]


def produce(bootstrap, topic, codec, idempotent):
    conf = {} if codec == "none" else {"compression_type": codec}
    if idempotent:
        conf["enable_idempotence"] = True
    producer = KafkaProducer(bootstrap_servers=bootstrap, **conf)
    sent = [
        producer.send(topic, value, key=key, headers=headers, timestamp_ms=timestamp)
        for key, value, headers, timestamp in records.read()
    ]
    producer.flush(60)
    for future in sent:
        future.get(timeout=60)
    producer.close()


def consume(bootstrap, topics):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    assigned = [TopicPartition(topic, p) for topic in topics for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(assigned)
    ends = consumer.end_offsets(assigned)
    starts = consumer.beginning_offsets(assigned)
    owed = {place for place in assigned if starts[place] < ends[place]}
    for place in assigned:
        consumer.seek(place, starts[place])
    while owed:
        polled = consumer.poll(timeout_ms=30_000, max_records=1000)
        if not polled:
            sys.exit(f"nothing came for 30 seconds; still owed: {owed}")
        for place, messages in polled.items():
            for m in messages:
                records.write(m.topic, m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)
            if messages[-1].offset + 1 >= ends[place]:
                owed.discard(place)
    consumer.close()


def member(bootstrap, group, topic, *options):
    options = members.options(options)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id=options.get("instance"),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=members.SESSION_MS,
        heartbeat_interval_ms=members.HEARTBEAT_MS,
        partition_assignment_strategy=[assignor for assignor in ASSIGNORS if assignor.name == options["assignor"]],
    )
    log = members.Log()

    def commit():
        due, sent = log.due()
        if not due:
            return
        try:
            offsets = {TopicPartition(topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in due.items()}
            consumer.commit(offsets, timeout_ms=10_000)
            log.committed(due, sent)
        except KafkaError as error:
            log.refused(error)

    class Listener(ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned):
            log.assigned([place.partition for place in assigned])

        def on_partitions_revoked(self, revoked):
            commit()
            log.revoked([place.partition for place in revoked])

        def on_partitions_lost(self, lost):
            log.revoked([place.partition for place in lost])

    consumer.subscribe([topic], listener=Listener())
    while not log.stopped:
        try:
            polled = consumer.poll(timeout_ms=200)
        except FencedInstanceIdError as error:
            log.fatal(error)
        except KafkaConnectionError:
            # This client tells its user when the broker is away while it looks for its coordinator.
            time.sleep(0.1)
            continue
        for place, messages in polled.items():
            log.read(place.partition, [message.offset for message in messages])
        commit()
    consumer.close()


records.main(produce, consume, member)
