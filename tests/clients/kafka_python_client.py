"""kafka-python: see records.py for the verbs."""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

import records


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


records.main(produce, consume)
