"""kafka-python's KafkaAdminClient, and offsets by time: see admin.py."""

import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    AlterConfigOp,
    ConfigResource,
    ConfigResourceType,
    MemberToRemove,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import for_code

from admin import *

bootstrap = sys.argv[1]
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5
place = TopicPartition(TOPIC, 1)


def refuse(what, code, function):
    refused(what, code, function, lambda error: getattr(error, "errno", None))


def names():
    return [name for name in admin.list_topics() if not name.startswith("__")]


def create(name, partitions=3, replicas=1, **options):
    spec = {"num_partitions": partitions, "replication_factor": replicas, "configs": CONFIG}
    return admin.create_topics({name: spec}, **options)


def partitions(name):
    (topic,) = admin.describe_topics([name])
    return sorted(partition["partition_index"] for partition in topic["partitions"])


def topics():
    create(TOPIC, validate_only=True)
    equal("topics after validate_only", names(), [])
    created = create(TOPIC)["topics"][0]
    equal("created", (created["num_partitions"], created["replication_factor"]), (3, 1))
    equal("its settings", created["configs"]["retention.ms"]["value"], CONFIG["retention.ms"])
    equal("topics", names(), [TOPIC])
    equal("partitions", partitions(TOPIC), [0, 1, 2])
    refuse("create again", ALREADY_EXISTS, lambda: create(TOPIC))
    refuse("a bad name", INVALID_TOPIC, lambda: create(BAD_NAME))
    refuse("no partitions", INVALID_PARTITIONS, lambda: create("other", partitions=0))
    refuse("three replicas on one broker", INVALID_REPLICATION, lambda: create("other", replicas=3))


def grow():
    admin.create_partitions({TOPIC: 5})
    equal("partitions after create_partitions", partitions(TOPIC), [0, 1, 2, 3, 4])
    refuse("fewer partitions", INVALID_PARTITIONS, lambda: admin.create_partitions({TOPIC: 2}))
    refuse("partitions of nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: admin.create_partitions({"nothing": 2}))
    equal("describe nothing", admin.describe_topics(["nothing"])[0]["error_code"], UNKNOWN_TOPIC_OR_PARTITION)
    described = admin.describe_topic_partitions([TOPIC])
    equal("describe_topic_partitions", len(described["topics"][0]["partitions"]), 5)
    first = admin.describe_topic_partitions([TOPIC], response_partition_limit=2)
    (topic,) = first["topics"]
    equal("its first page", [partition["partition_index"] for partition in topic["partitions"]], [0, 1])
    equal("its cursor", (first["next_cursor"]["topic_name"], first["next_cursor"]["partition_index"]), (TOPIC, 2))


def node():
    return admin.describe_cluster()["brokers"][0]["broker_id"]


def cluster():
    found = admin.describe_cluster()
    equal("brokers", [f"{broker['host']}:{broker['port']}" for broker in found["brokers"]], [bootstrap])
    equal("controller", found["controller_id"], found["brokers"][0]["broker_id"])
    equal("a cluster id", bool(found["cluster_id"]), True)
    (quorum,) = admin.describe_metadata_quorum()["topics"]
    (quorum,) = quorum["partitions"]
    equal("quorum", (quorum["error"], quorum["leader_id"]), (None, node()))
    equal("voters", [voter["replica_id"] for voter in quorum["current_voters"]], [node()])
    features = admin.describe_features()
    equal("metadata.version", features["metadata.version"]["finalized"][1] > 0, True)
    refuse("a feature that is not", INVALID_UPDATE_VERSION, lambda: admin.update_features({"no.such.feature": 1}))


def log_dirs():
    (described,) = admin.describe_log_dirs()
    (log_dir,) = described["log_dirs"]
    equal("no error", (log_dir["error_code"], described["broker"]), (0, node()))
    sizes = {
        p["partition_index"]: p["partition_size"] for t in log_dir["topics"] if t["name"] == TOPIC for p in t["partitions"]
    }
    equal("partitions", sorted(sizes), [0, 1, 2, 3, 4])
    equal("sizes", (sizes[0], sizes[1] > 0), (0, True))
    equal("the disk", log_dir["total_bytes"] > log_dir["usable_bytes"] > 0, True)
    (elsewhere,) = admin.alter_replica_log_dirs({(TOPIC, 1, node()): "/nowhere"}).values()
    equal("a directory that is not", elsewhere.errno, LOG_DIR_NOT_FOUND)
    (here,) = admin.alter_replica_log_dirs({(TOPIC, 1, node()): log_dir["log_dir"]}).values()
    equal("where it is", here.errno, 0)


def configs(kind, name):
    found = admin.describe_configs([ConfigResource(kind, name)], config_filter="all", include_synonyms=True)
    return found[kind.name.lower()][name]


def of_topic(key):
    entry = configs(ConfigResourceType.TOPIC, TOPIC)[key]
    return entry["value"], entry["config_source"]


def settings():
    config = configs(ConfigResourceType.TOPIC, TOPIC)
    equal("retention.ms", config["retention.ms"]["value"], CONFIG["retention.ms"])
    sources = [(synonym["name"], synonym["source"]) for synonym in config["retention.ms"]["synonyms"]]
    equal("its synonyms", sources[0], ("retention.ms", "DYNAMIC_TOPIC_CONFIG"))
    equal("segment.bytes", config["segment.bytes"]["value"], "1073741824")
    broker_config = configs(ConfigResourceType.BROKER, str(node()))
    equal("num.partitions", broker_config["num.partitions"]["value"], "1")
    # This client passes over the error code of a resource.
    equal("configs of nothing", configs(ConfigResourceType.TOPIC, "nothing"), {})
    listed = admin.list_config_resources()
    equal("config resources", (listed["topic"], listed["broker"]), ([TOPIC], [str(node())]))


def alter():
    def change(name, entries, **options):
        options.setdefault("raise_on_unknown", False)
        done = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, entries)], **options)
        return done["topic"][name]

    default = ("1048588", "DEFAULT_CONFIG")
    equal("validate_only", change(TOPIC, {"max.message.bytes": "65536"}, validate_only=True), "OK")
    equal("after validate_only", of_topic("max.message.bytes"), default)
    equal("set", change(TOPIC, {"max.message.bytes": "65536"}, raise_on_unknown=True), "OK")
    equal("after set", of_topic("max.message.bytes"), ("65536", "DYNAMIC_TOPIC_CONFIG"))
    equal("what was not named", of_topic("retention.ms"), (CONFIG["retention.ms"], "DYNAMIC_TOPIC_CONFIG"))
    equal("append", change(TOPIC, {"cleanup.policy": (AlterConfigOp.APPEND, "compact")}), "OK")
    equal("after append", of_topic("cleanup.policy")[0], "delete,compact")
    reset = [ConfigResource(ConfigResourceType.TOPIC, TOPIC, ["max.message.bytes", "cleanup.policy"])]
    equal("reset", admin.reset_configs(reset), {"topic": {TOPIC: "OK"}})
    equal("after reset", of_topic("max.message.bytes"), default)
    for key, value in [("max.message.bytes", "many"), ("no.such.setting", "1")]:
        equal(f"{key}={value}", "[Error 40]" in change(TOPIC, {key: value}), True)
    equal("alter nothing", "[Error 3]" in change("nothing", {"max.message.bytes": "1"}), True)
    # The older call replaces all settings; this client fills in what it found.
    equal("alter_configs", change(TOPIC, {"max.message.bytes": "65536"}, incremental=False), "OK")
    equal("what it filled in", of_topic("retention.ms")[0], CONFIG["retention.ms"])


def list_offset(spec):
    found = admin.list_partition_offsets({place: spec})[place]
    return found.offset, found.timestamp


def offsets():
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type="zstd", linger_ms=50)
    for time_ms in TIMES_MS:
        producer.send(TOPIC, b"value", partition=1, timestamp_ms=time_ms)
    producer.close()
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


def producers():
    producer = KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    for _ in range(3):
        producer.send(TOPIC, b"value", partition=2).get(30)
    (state,) = admin.describe_producers([TopicPartition(TOPIC, 2)])[TopicPartition(TOPIC, 2)].active_producers
    equal("producer", (state.producer_id >= 0, state.producer_epoch, state.last_sequence), (True, 0, 2))
    equal("no transaction", state.current_transaction_start_offset, -1)
    producer.close()


def delete_records():
    def delete(partition, offset):
        return admin.delete_records({partition: offset})[partition]["low_watermark"]

    equal("delete_records", delete(place, 4), 4)
    equal("earliest", list_offset(EARLIEST)[0], 4)
    equal("deleted already", delete(place, 2), 4)
    refuse("beyond the end", OFFSET_OUT_OF_RANGE, lambda: delete(place, 11))
    equal("all", delete(place, -1), 10)


def groups():
    def committed(partitions=None):
        found = admin.list_group_offsets({GROUP: partitions})[GROUP]
        return {place.partition: (offset.offset, offset.metadata) for place, offset in found.items()}

    def altered(topic, partition, offset):
        (error,) = admin.alter_group_offsets(
            GROUP, {TopicPartition(topic, partition): OffsetAndMetadata(offset, "by hand", 0)}
        ).values()
        return error.errno

    def listed(**filters):
        return [(g["group_id"], g["protocol_type"], g["group_state"], g["group_type"]) for g in admin.list_groups(**filters)]

    def deleted():
        return admin.delete_groups([GROUP])[GROUP]

    equal("no groups", listed(), [])
    equal("delete an unknown group", deleted(), "GroupIdNotFoundError")
    equal("commit", (altered(TOPIC, 1, 7), altered(TOPIC, 0, 3)), (0, 0))
    equal("offsets", committed(), {0: (3, "by hand"), 1: (7, "by hand")})
    equal("commit to nothing", altered("nothing", 0, 1), UNKNOWN_TOPIC_OR_PARTITION)
    equal("groups", listed(), [(GROUP, "", "Empty", "classic")])
    equal("stable groups", listed(states_filter=["Stable"]), [])
    equal("groups of the new protocol", listed(types_filter=["Consumer"]), [])
    (error,) = admin.delete_group_offsets(GROUP, [TopicPartition(TOPIC, 0)]).values()
    equal("delete_group_offsets", (error.errno, committed()), (0, {1: (7, "by hand")}))

    conf = {"group_id": GROUP, "client_id": "somebody", "group_instance_id": "first", "enable_auto_commit": False}
    consumer = KafkaConsumer(TOPIC, bootstrap_servers=bootstrap, **conf)
    deadline = time.monotonic() + 60
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(timeout_ms=100)
    found = admin.describe_groups([GROUP])[GROUP]
    told = found["error"], found["group_state"], found["protocol_type"], found["protocol_data"]
    equal("described", told, (None, "Stable", "consumer", "range"))
    (member,) = found["members"]
    told = member["client_id"], member["client_host"], member["group_instance_id"]
    equal("its member", told, ("somebody", "/127.0.0.1", "first"))
    equal("delete a living group", deleted(), "NonEmptyGroupError")
    equal("commit beside members", altered(TOPIC, 1, 1), UNKNOWN_MEMBER_ID)
    (error,) = admin.delete_group_offsets(GROUP, [place]).values()
    equal("delete offsets that are in use", error.errno, GROUP_SUBSCRIBED_TO_TOPIC)
    (error,) = admin.remove_group_members(GROUP, [MemberToRemove(group_instance_id="nobody")]).values()
    equal("remove who is not there", error.errno, UNKNOWN_MEMBER_ID)
    (error,) = admin.remove_group_members(GROUP, [MemberToRemove(group_instance_id="first")]).values()
    equal("remove a static member", error.errno, 0)
    equal("without it", admin.describe_groups([GROUP])[GROUP]["group_state"], "Empty")
    consumer.close()
    equal("delete", deleted(), "OK")
    equal("groups after delete", listed(), [])


def elections():
    for kind in [0, 1]:
        (topic,) = admin.elect_leaders(kind, {TOPIC: [1]}).replica_election_results
        equal(f"elect {kind}", [(p.partition_id, p.error_code) for p in topic.partition_result], [(1, ELECTION_NOT_NEEDED)])
    refuse("elect nothing", UNKNOWN_TOPIC_OR_PARTITION, lambda: admin.elect_leaders(0, {"nothing": [0]}))
    equal("reassignments", admin.list_partition_reassignments(), {})
    equal("reassignments of one", admin.list_partition_reassignments({TOPIC: [1]}), {})

    def reassign(partition, replicas):
        error = admin.alter_partition_reassignments({partition: replicas})[partition]
        return 0 if error is None else error.errno

    equal("to where it is", reassign(place, [node()]), 0)
    equal("to a broker that is not", reassign(place, [node() + 1]), INVALID_REPLICA_ASSIGNMENT)
    equal("cancel nothing", reassign(place, None), NO_REASSIGNMENT_IN_PROGRESS)
    equal("reassign nothing", reassign(TopicPartition("nothing", 0), [node()]), UNKNOWN_TOPIC_OR_PARTITION)


def security():
    who = {"principal": "User:u", "host": "*", "operation": ACLOperation.READ, "permission_type": ACLPermissionType.ALLOW}
    rule = ACL(**who, resource_pattern=ResourcePattern(ResourceType.TOPIC, TOPIC))
    pattern = ResourcePatternFilter(ResourceType.TOPIC, TOPIC, ACLResourcePatternType.LITERAL)
    found = ACLFilter(**who, resource_pattern=pattern)
    disabled = for_code(SECURITY_DISABLED)

    refuse("describe_acls", SECURITY_DISABLED, lambda: admin.describe_acls(found))
    equal("create_acls", admin.create_acls([rule])["failed"], [disabled])
    equal("delete_acls", [error for _, _, error in admin.delete_acls([found])], [disabled])
    equal("SCRAM users", admin.describe_user_scram_credentials(), {})
    nobody = admin.describe_user_scram_credentials(["nobody"])["nobody"]
    equal("an unknown SCRAM user", (bool(nobody["error"]), nobody["credential_infos"]), (True, []))


def delete_topics():
    admin.delete_topics([TOPIC])
    equal("topics after delete", names(), [])
    refuse("delete again", UNKNOWN_TOPIC_OR_PARTITION, lambda: admin.delete_topics([TOPIC]))
    create(TOPIC, partitions=2, wait_for_metadata=True)
    equal("partitions of the new topic", partitions(TOPIC), [0, 1])
    equal("end of the new topic", list_offset(LATEST)[0], 0)


run(
    topics,
    grow,
    cluster,
    settings,
    offsets,
    log_dirs,
    producers,
    alter,
    delete_records,
    groups,
    elections,
    security,
    delete_topics,
)
admin.close()
