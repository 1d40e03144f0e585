"""kafka-python's KafkaAdminClient, and offsets by time: see admin.py."""

import sys

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from admin import *

bootstrap = sys.argv[1]
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5


def refuse(what, code, function):
    refused(what, code, function, lambda error: getattr(error, "errno", None))


def create(name, partitions=3, replicas=1, **options):
    spec = {"num_partitions": partitions, "replication_factor": replicas, "configs": CONFIG}
    return admin.create_topics({name: spec}, **options)


def partitions(name):
    (topic,) = admin.describe_topics([name])
    return [partition["partition_index"] for partition in topic["partitions"]]


create(TOPIC, validate_only=True)
equal("topics after validate_only", admin.list_topics(), [])
created = create(TOPIC)["topics"][0]
equal("created", (created["num_partitions"], created["replication_factor"]), (3, 1))
equal("topics", admin.list_topics(), [TOPIC])
equal("partitions", sorted(partitions(TOPIC)), [0, 1, 2])
refuse("create again", ALREADY_EXISTS, lambda: create(TOPIC))
refuse("a bad name", INVALID_TOPIC, lambda: create(BAD_NAME))
refuse("no partitions", INVALID_PARTITIONS, lambda: create("other", partitions=0))
refuse("three replicas on one broker", INVALID_REPLICATION, lambda: create("other", replicas=3))

admin.create_partitions({TOPIC: 5})
equal("partitions after create_partitions", sorted(partitions(TOPIC)), [0, 1, 2, 3, 4])
refuse("fewer partitions", INVALID_PARTITIONS, lambda: admin.create_partitions({TOPIC: 2}))
refuse("partitions of nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: admin.create_partitions({"nothing": 2}))
equal("describe nothing", admin.describe_topics(["nothing"])[0]["error_code"], UNKNOWN_TOPIC_OR_PARTITION)
described = admin.describe_topic_partitions([TOPIC])
equal("describe_topic_partitions", len(described["topics"][0]["partitions"]), 5)

cluster = admin.describe_cluster()
equal("brokers", [f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]], [bootstrap])
equal("controller", cluster["controller_id"], cluster["brokers"][0]["broker_id"])
equal("a cluster id", bool(cluster["cluster_id"]), True)


def configs(kind, name):
    found = admin.describe_configs([ConfigResource(kind, name)], config_filter="all", include_synonyms=True)
    return found[kind.name.lower()][name]


config = configs(ConfigResourceType.TOPIC, TOPIC)
equal("retention.ms", config["retention.ms"]["value"], CONFIG["retention.ms"])
equal("segment.bytes", config["segment.bytes"]["value"], "1073741824")
broker_config = configs(ConfigResourceType.BROKER, str(cluster["controller_id"]))
equal("num.partitions", broker_config["num.partitions"]["value"], "1")
# This client passes over the error code of a resource.
equal("configs of nothing", configs(ConfigResourceType.TOPIC, "nothing"), {})

producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type="zstd", linger_ms=50)
for time_ms in TIMES_MS:
    producer.send(TOPIC, b"value", partition=1, timestamp_ms=time_ms)
producer.close()
place = TopicPartition(TOPIC, 1)


def list_offset(spec):
    found = admin.list_partition_offsets({place: spec})[place]
    return found.offset, found.timestamp


for name, spec, offset in [("earliest", EARLIEST, 0), ("latest", LATEST, 10), ("earliest local", EARLIEST_LOCAL, 0)]:
    equal(name, list_offset(spec)[0], offset)
equal("max timestamp", list_offset(MAX_TIMESTAMP), (4, TIMES_MS[4]))
equal("latest tiered", list_offset(LATEST_TIERED), (-1, -1))
consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
for time_ms, offset in BY_TIME:
    found = consumer.offsets_for_times({place: time_ms})[place]
    found = (-1, None) if found is None else (found.offset, found.timestamp)
    equal(f"offsets_for_times at {time_ms}", found, (offset, TIMES_MS[offset] if offset >= 0 else None))
equal("beginning", consumer.beginning_offsets([place]), {place: 0})
equal("end", consumer.end_offsets([place]), {place: 10})
consumer.close()

admin.delete_topics([TOPIC])
equal("topics after delete", admin.list_topics(), [])
refuse("delete again", UNKNOWN_TOPIC_OR_PARTITION, lambda: admin.delete_topics([TOPIC]))
create(TOPIC, partitions=2, wait_for_metadata=True)
equal("partitions of the new topic", sorted(partitions(TOPIC)), [0, 1])
equal("end of the new topic", list_offset(LATEST)[0], 0)
admin.close()
