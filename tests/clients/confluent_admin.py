"""confluent-kafka's AdminClient, and offsets by time: see admin.py."""

import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec

from admin import *

bootstrap = sys.argv[1]
admin = AdminClient({"bootstrap.servers": bootstrap})


def result(futures):
    """What the only future of an answer gives, or raises."""
    (future,) = futures.values()
    return future.result(30)


def refuse(what, code, function):
    refused(what, code, function, lambda error: isinstance(error, KafkaException) and error.args[0].code())


def create(name, partitions=3, replicas=1, **options):
    return result(admin.create_topics([NewTopic(name, partitions, replicas, config=CONFIG)], **options))


def partitions(name):
    return len(admin.list_topics(name, timeout=30).topics[name].partitions)


create(TOPIC, validate_only=True)
equal("topics after validate_only", list(admin.list_topics(timeout=30).topics), [])
create(TOPIC)
equal("topics", list(admin.list_topics(timeout=30).topics), [TOPIC])
equal("partitions", partitions(TOPIC), 3)
refuse("create again", ALREADY_EXISTS, lambda: create(TOPIC))
refuse("a bad name", INVALID_TOPIC, lambda: create(BAD_NAME))
refuse("three replicas on one broker", INVALID_REPLICATION, lambda: create("other", replicas=3))

result(admin.create_partitions([NewPartitions(TOPIC, 5)]))
equal("partitions after create_partitions", partitions(TOPIC), 5)
refuse("fewer partitions", INVALID_PARTITIONS, lambda: result(admin.create_partitions([NewPartitions(TOPIC, 2)])))
refuse(
    "partitions of nothing",
    UNKNOWN_TOPIC_OR_PARTITION,
    lambda: result(admin.create_partitions([NewPartitions("nothing", 2)])),
)

topic = result(admin.describe_topics(TopicCollection([TOPIC])))
equal("described", (topic.name, topic.is_internal, [p.id for p in topic.partitions]), (TOPIC, False, [0, 1, 2, 3, 4]))
refuse(
    "describe nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: result(admin.describe_topics(TopicCollection(["nothing"])))
)
cluster = admin.describe_cluster().result(30)
equal("brokers", [f"{node.host}:{node.port}" for node in cluster.nodes], [bootstrap])
equal("controller", cluster.controller.id, cluster.nodes[0].id)
equal("cluster id", bool(cluster.cluster_id) and cluster.cluster_id, admin.list_topics(timeout=30).cluster_id)

config = result(admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, TOPIC)]))
entry = config["retention.ms"]
equal("retention.ms", (entry.value, entry.is_default, entry.is_sensitive), (CONFIG["retention.ms"], False, False))
entry = config["segment.bytes"]
equal("segment.bytes", (entry.value, entry.is_default), ("1073741824", True))
broker = ConfigResource(ConfigResource.Type.BROKER, str(cluster.nodes[0].id))
equal("num.partitions", result(admin.describe_configs([broker]))["num.partitions"].value, "1")
nothing = ConfigResource(ConfigResource.Type.TOPIC, "nothing")
refuse("configs of nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: result(admin.describe_configs([nothing])))

producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 50})
for time_ms in TIMES_MS:
    producer.produce(TOPIC, b"value", partition=1, timestamp=time_ms)
equal("records not sent", producer.flush(30), 0)
place = TopicPartition(TOPIC, 1)


def list_offset(spec):
    found = result(admin.list_offsets({place: spec}))
    return found.offset, found.timestamp


equal("earliest", list_offset(OffsetSpec.earliest())[0], 0)
equal("latest", list_offset(OffsetSpec.latest())[0], 10)
equal("max timestamp", list_offset(OffsetSpec.max_timestamp()), (4, TIMES_MS[4]))
# librdkafka keeps unused consumer threads out of the way: assign() is not even needed to ask for offsets.
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
for time_ms, offset in BY_TIME:
    found = list_offset(OffsetSpec.for_timestamp(time_ms))
    equal(f"list_offsets at {time_ms}", found, (offset, TIMES_MS[offset] if offset >= 0 else -1))
    (by_time,) = consumer.offsets_for_times([TopicPartition(TOPIC, 1, time_ms)], timeout=30)
    equal(f"offsets_for_times at {time_ms}", by_time.offset, offset)
consumer.close()

result(admin.delete_topics([TOPIC]))
equal("topics after delete", list(admin.list_topics(timeout=30).topics), [])
refuse("delete again", UNKNOWN_TOPIC_OR_PARTITION, lambda: result(admin.delete_topics([TOPIC])))
create(TOPIC, partitions=2)
equal("partitions of the new topic", partitions(TOPIC), 2)
equal("end of the new topic", list_offset(OffsetSpec.latest())[0], 0)
