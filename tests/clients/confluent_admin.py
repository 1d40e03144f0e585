"""confluent-kafka's AdminClient, and offsets by time: see admin.py."""

import sys
import time

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    ElectionType,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

from admin import *

bootstrap = sys.argv[1]
admin = AdminClient({"bootstrap.servers": bootstrap})


def result(futures):
    """What the only future of an answer gives, or raises."""
    (future,) = futures.values()
    return future.result(30)


def refuse(what, code, function):
    refused(what, code, function, lambda error: isinstance(error, KafkaException) and error.args[0].code())


def create(name, partitions=3, replicas=1, assignment=None, **options):
    placed = {"replica_assignment": assignment} if assignment else {"replication_factor": replicas}
    return result(admin.create_topics([NewTopic(name, partitions, config=CONFIG, **placed)], **options))


def names():
    return [name for name in admin.list_topics(timeout=30).topics if not name.startswith("__")]


def partitions(name):
    return len(admin.list_topics(name, timeout=30).topics[name].partitions)


def topics():
    create(TOPIC, validate_only=True)
    equal("topics after validate_only", names(), [])
    create(TOPIC)
    equal("topics", names(), [TOPIC])
    equal("partitions", partitions(TOPIC), 3)
    refuse("create again", ALREADY_EXISTS, lambda: create(TOPIC))
    refuse("a bad name", INVALID_TOPIC, lambda: create(BAD_NAME))
    refuse("three replicas on one broker", INVALID_REPLICATION, lambda: create("other", replicas=3))
    node = admin.describe_cluster().result(30).nodes[0].id
    create("placed", 2, assignment=[[node], [node]])
    equal("partitions as assigned", partitions("placed"), 2)
    result(admin.delete_topics(["placed"]))
    elsewhere = [[node + 1], [node]]
    refuse("a replica elsewhere", INVALID_REPLICA_ASSIGNMENT, lambda: create("other", 2, assignment=elsewhere))
    bad = NewTopic("other", 1, 1, config={"retention.ms": "long"})
    refuse("a bad config", INVALID_CONFIG, lambda: result(admin.create_topics([bad])))


def grow():
    def to(name, count, **options):
        return result(admin.create_partitions([NewPartitions(name, count)], **options))

    to(TOPIC, 5, validate_only=True)
    equal("partitions after validate_only", partitions(TOPIC), 3)
    to(TOPIC, 5)
    equal("partitions after create_partitions", partitions(TOPIC), 5)
    refuse("fewer partitions", INVALID_PARTITIONS, lambda: to(TOPIC, 2))
    refuse("as many partitions", INVALID_PARTITIONS, lambda: to(TOPIC, 5))
    refuse("partitions of nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: to("nothing", 2))


def describe():
    def topic(name):
        return result(admin.describe_topics(TopicCollection([name]), include_authorized_operations=True))

    found = topic(TOPIC)
    equal("described", (found.name, found.is_internal, [p.id for p in found.partitions]), (TOPIC, False, [0, 1, 2, 3, 4]))
    of_topics = "ALTER ALTER_CONFIGS CREATE DELETE DESCRIBE DESCRIBE_CONFIGS READ WRITE"
    equal("allowed on topics", sorted(op.name for op in found.authorized_operations), of_topics.split())
    refuse("describe nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: topic("nothing"))
    cluster = admin.describe_cluster(include_authorized_operations=True).result(30)
    equal("brokers", [f"{node.host}:{node.port}" for node in cluster.nodes], [bootstrap])
    equal("controller", cluster.controller.id, cluster.nodes[0].id)
    equal("cluster id", bool(cluster.cluster_id) and cluster.cluster_id, admin.list_topics(timeout=30).cluster_id)
    of_clusters = "ALTER ALTER_CONFIGS CLUSTER_ACTION CREATE DESCRIBE DESCRIBE_CONFIGS IDEMPOTENT_WRITE"
    equal("allowed on the cluster", sorted(op.name for op in cluster.authorized_operations), of_clusters.split())


def resource(name, kind=ConfigResource.Type.TOPIC, **settings):
    return ConfigResource(kind, name, **settings)


def setting(name, key, kind=ConfigResource.Type.TOPIC):
    entry = result(admin.describe_configs([resource(name, kind)]))[key]
    return entry.value, ConfigSource(entry.source).name


def configs():
    entry = result(admin.describe_configs([resource(TOPIC)]))["retention.ms"]
    equal("retention.ms", (entry.value, entry.is_default, entry.is_sensitive), (CONFIG["retention.ms"], False, False))
    equal("segment.bytes", setting(TOPIC, "segment.bytes"), ("1073741824", "DEFAULT_CONFIG"))
    broker = str(admin.describe_cluster().result(30).nodes[0].id)
    equal("num.partitions", setting(broker, "num.partitions", ConfigResource.Type.BROKER)[0], "1")
    unknown = [resource("nothing")]
    refuse("configs of nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: result(admin.describe_configs(unknown)))


def alter():
    def change(name, key, value, operation=AlterConfigOpType.SET, kind=ConfigResource.Type.TOPIC, **options):
        entry = ConfigEntry(key, value, incremental_operation=operation)
        return result(admin.incremental_alter_configs([resource(name, kind, incremental_configs=[entry])], **options))

    change(TOPIC, "max.message.bytes", "65536", validate_only=True)
    equal("after validate_only", setting(TOPIC, "max.message.bytes"), ("1048588", "DEFAULT_CONFIG"))
    change(TOPIC, "max.message.bytes", "65536")
    equal("after set", setting(TOPIC, "max.message.bytes"), ("65536", "DYNAMIC_TOPIC_CONFIG"))
    equal("what was not named", setting(TOPIC, "retention.ms"), (CONFIG["retention.ms"], "DYNAMIC_TOPIC_CONFIG"))
    failed = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 1_000_000})
    producer.produce(TOPIC, bytes(70_000), partition=0, on_delivery=lambda error, _: failed.append(error and error.code()))
    producer.flush(30)
    equal("it is in force", failed, [MESSAGE_TOO_LARGE])
    change(TOPIC, "max.message.bytes", None, AlterConfigOpType.DELETE)
    equal("after delete", setting(TOPIC, "max.message.bytes"), ("1048588", "DEFAULT_CONFIG"))
    change(TOPIC, "cleanup.policy", "compact", AlterConfigOpType.APPEND)
    equal("after append", setting(TOPIC, "cleanup.policy")[0], "delete,compact")
    change(TOPIC, "cleanup.policy", "delete", AlterConfigOpType.SUBTRACT)
    equal("after subtract", setting(TOPIC, "cleanup.policy")[0], "compact")
    change(TOPIC, "cleanup.policy", None, AlterConfigOpType.DELETE)
    for key, value in [("max.message.bytes", "many"), ("no.such.setting", "1"), ("cleanup.policy", "shred")]:
        refuse(f"{key}={value}", INVALID_CONFIG, lambda: change(TOPIC, key, value))
    refuse("alter nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: change("nothing", "max.message.bytes", "1"))
    broker = str(admin.describe_cluster().result(30).nodes[0].id)
    of_broker = ConfigResource.Type.BROKER
    change(broker, "log.retention.ms", "7200000", kind=of_broker)
    equal("a broker's", setting(broker, "log.retention.ms", of_broker), ("7200000", "DYNAMIC_BROKER_CONFIG"))
    change(broker, "log.retention.ms", None, AlterConfigOpType.DELETE, of_broker)
    refuse("a fixed one", INVALID_REQUEST, lambda: change(broker, "node.id", "7", kind=of_broker))

    # The older call replaces all settings.
    result(admin.alter_configs([resource(TOPIC, set_config={"max.message.bytes": "65536"})]))
    equal("after alter_configs", setting(TOPIC, "max.message.bytes")[0], "65536")
    equal("what was not named", setting(TOPIC, "retention.ms"), ("604800000", "DEFAULT_CONFIG"))
    result(admin.alter_configs([resource(TOPIC, set_config=CONFIG)]))


place = TopicPartition(TOPIC, 1)


def list_offset(spec):
    found = result(admin.list_offsets({place: spec}))
    return found.offset, found.timestamp


def offsets():
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 50})
    for time_ms in TIMES_MS:
        producer.produce(TOPIC, b"value", partition=1, timestamp=time_ms)
    equal("records not sent", producer.flush(30), 0)
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


def delete_records():
    def delete(topic, partition, offset):
        return result(admin.delete_records([TopicPartition(topic, partition, offset)])).low_watermark

    equal("delete_records", delete(TOPIC, 1, 4), 4)
    equal("earliest", list_offset(OffsetSpec.earliest())[0], 4)
    equal("deleted already", delete(TOPIC, 1, 2), 4)
    refuse("beyond the end", OFFSET_OUT_OF_RANGE, lambda: delete(TOPIC, 1, 11))
    # It looks for the leader first.
    refuse("of nothing", KafkaError._NOENT, lambda: delete("nothing", 0, 0))
    equal("all", delete(TOPIC, 1, OFFSET_END), 10)


def groups():
    def listed(**filters):
        found = admin.list_consumer_groups(**filters).result(30)
        equal("errors of list", found.errors, [])
        return [(group.group_id, group.is_simple_consumer_group, group.state.name, group.type.name) for group in found.valid]

    def described(name=GROUP):
        return result(admin.describe_consumer_groups([name], include_authorized_operations=True))

    def altered(topic, partition, offset):
        places = [TopicPartition(topic, partition, offset, metadata="by hand")]
        (done,) = result(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP, places)])).topic_partitions
        if done.error:
            raise KafkaException(done.error)

    def committed(name, places=None):
        found = result(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name, places)]))
        return sorted((place.partition, place.offset, place.metadata or "") for place in found.topic_partitions)

    def delete(name):
        return result(admin.delete_consumer_groups([name]))

    equal("no groups", listed(), [])
    equal("offsets of an unknown group", committed("nothing", [place]), [(1, -1001, "")])
    equal("an unknown group", described("nothing").state.name, "DEAD")
    refuse("delete an unknown group", GROUP_ID_NOT_FOUND, lambda: delete("nothing"))
    altered(TOPIC, 1, 7)
    altered(TOPIC, 0, 3)
    equal("offsets", committed(GROUP), [(0, 3, "by hand"), (1, 7, "by hand")])
    equal("offsets of some", committed(GROUP, [place]), [(1, 7, "by hand")])
    refuse("commit to nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: altered("nothing", 0, 1))
    simple = (GROUP, True, "EMPTY", "CLASSIC")
    equal("groups", listed(), [simple])
    equal("empty groups", listed(states={ConsumerGroupState.EMPTY}), [simple])
    equal("stable groups", listed(states={ConsumerGroupState.STABLE}), [])
    equal("classic groups", listed(types={ConsumerGroupType.CLASSIC}), [simple])
    equal("groups of the new protocol", listed(types={ConsumerGroupType.CONSUMER}), [])
    found = described()
    equal("described", (found.group_id, found.state.name, found.members), (GROUP, "EMPTY", []))
    operations = sorted(operation.name for operation in found.authorized_operations)
    equal("allowed on groups", operations, "ALTER_CONFIGS DELETE DESCRIBE DESCRIBE_CONFIGS READ".split())
    equal("coordinator", f"{found.coordinator.host}:{found.coordinator.port}", bootstrap)

    conf = {"bootstrap.servers": bootstrap, "group.id": GROUP, "client.id": "somebody", "enable.auto.commit": False}
    consumer = Consumer(conf)
    consumer.subscribe([TOPIC])
    deadline = time.monotonic() + 60
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(0.1)
    found = described()
    equal("with a member", (found.state.name, found.partition_assignor), ("STABLE", "range"))
    (member,) = found.members
    assigned = sorted(place.partition for place in member.assignment.topic_partitions)
    equal("the member", (member.client_id, member.host, assigned), ("somebody", "/127.0.0.1", [0, 1, 2, 3, 4]))
    equal("stable groups", listed(states={ConsumerGroupState.STABLE}), [(GROUP, False, "STABLE", "CLASSIC")])
    refuse("delete a living group", NON_EMPTY_GROUP, lambda: delete(GROUP))
    refuse("commit beside members", UNKNOWN_MEMBER_ID, lambda: altered(TOPIC, 1, 1))
    consumer.close()
    equal("without it", described().state.name, "EMPTY")
    delete(GROUP)
    equal("groups after delete", listed(), [])
    equal("offsets after delete", committed(GROUP, [place]), [(1, -1001, "")])


def elections():
    def elect(kind, places):
        found = admin.elect_leaders(kind, places).result(30)
        return {(place.topic, place.partition): error and error.code() for place, error in found.items()}

    for kind in [ElectionType.PREFERRED, ElectionType.UNCLEAN]:
        equal(f"elect {kind.name}", elect(kind, [place]), {(TOPIC, 1): ELECTION_NOT_NEEDED})
        equal(f"elect all {kind.name}", elect(kind, None), {})
    nothing = [TopicPartition("nothing", 0)]
    equal("elect nothing", elect(ElectionType.PREFERRED, nothing), {("nothing", 0): UNKNOWN_TOPIC_OR_PARTITION})


def security():
    rule = (
        ResourceType.TOPIC,
        TOPIC,
        ResourcePatternType.LITERAL,
        "User:u",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    refuse("create_acls", SECURITY_DISABLED, lambda: result(admin.create_acls([AclBinding(*rule)])))
    # It passes over the error of this answer.
    equal("describe_acls", admin.describe_acls(AclBindingFilter(*rule)).result(30), [])
    refuse("delete_acls", SECURITY_DISABLED, lambda: result(admin.delete_acls([AclBindingFilter(*rule)])))
    equal("SCRAM users", admin.describe_user_scram_credentials().result(30), {})
    nobody = lambda: result(admin.describe_user_scram_credentials(["nobody"]))
    refuse("an unknown SCRAM user", RESOURCE_NOT_FOUND, nobody)


def delete_topics():
    def delete(name):
        return result(admin.delete_topics([name]))

    delete(TOPIC)
    equal("topics after delete", names(), [])
    refuse("delete again", UNKNOWN_TOPIC_OR_PARTITION, lambda: delete(TOPIC))
    create(TOPIC, partitions=2)
    equal("partitions of the new topic", partitions(TOPIC), 2)
    equal("end of the new topic", list_offset(OffsetSpec.latest())[0], 0)


run(topics, grow, describe, configs, offsets, alter, delete_records, groups, elections, security, delete_topics)
