"""aiokafka's AIOKafkaAdminClient, and offsets by time: see admin.py."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from aiokafka.structs import OffsetAndMetadata

from admin import *

bootstrap = sys.argv[1]


async def topics(admin):
    async def create(name, partitions=3, replicas=1, **options):
        new = NewTopic(name, partitions, replicas, topic_configs=CONFIG)
        answer = await admin.create_topics([new], **options)
        return answer.topic_errors[0][1]

    async def delete(name):
        return (await admin.delete_topics([name])).topic_error_codes[0][1]

    equal("validate only", await create(TOPIC, validate_only=True), 0)
    equal("topics after validate_only", await admin.list_topics(), [])
    equal("create", await create(TOPIC), 0)
    equal("topics", await admin.list_topics(), [TOPIC])
    equal("create again", await create(TOPIC), ALREADY_EXISTS)
    equal("a bad name", await create(BAD_NAME), INVALID_TOPIC)
    equal("no partitions", await create("other", partitions=0), INVALID_PARTITIONS)
    equal("three replicas on one broker", await create("other", replicas=3), INVALID_REPLICATION)
    equal("delete", await delete(TOPIC), 0)
    equal("topics after delete", await admin.list_topics(), [])
    equal("delete again", await delete(TOPIC), UNKNOWN_TOPIC_OR_PARTITION)
    equal("create anew", await create(TOPIC), 0)


async def partitions(admin):
    async def grow(name, count):
        """The error code of create_partitions, which this client raises."""
        try:
            await admin.create_partitions({name: NewPartitions(count)})
        except Exception as error:
            return getattr(error, "errno", error)
        return 0

    equal("create_partitions", await grow(TOPIC, 5), 0)
    equal("fewer partitions", await grow(TOPIC, 2), INVALID_PARTITIONS)
    equal("partitions of nothing", await grow("nothing", 2), UNKNOWN_TOPIC_OR_PARTITION)
    (topic,) = await admin.describe_topics([TOPIC])
    equal("partitions", sorted(p["partition"] for p in topic["partitions"]), [0, 1, 2, 3, 4])


async def describe(admin):
    cluster = await admin.describe_cluster()
    (broker,) = cluster["brokers"]
    equal("broker", f"{broker['host']}:{broker['port']}", bootstrap)
    equal("controller", cluster["controller_id"], broker["node_id"])

    async def configs(kind, name):
        """(error code, {setting: value}) of one resource."""
        (answer,) = await admin.describe_configs([ConfigResource(kind, name)])
        code, _message, _kind, _name, entries = answer.resources[0]
        return code, {entry[0]: entry[1] for entry in entries}

    code, config = await configs(ConfigResourceType.TOPIC, TOPIC)
    equal("settings", (code, config["retention.ms"], config["segment.bytes"]), (0, CONFIG["retention.ms"], "1073741824"))
    code, config = await configs(ConfigResourceType.BROKER, str(broker["node_id"]))
    equal("num.partitions", (code, config["num.partitions"]), (0, "1"))
    code, config = await configs(ConfigResourceType.TOPIC, "nothing")
    equal("settings of nothing", (code, config), (UNKNOWN_TOPIC_OR_PARTITION, {}))


async def offsets():
    place = TopicPartition(TOPIC, 1)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type="gzip", linger_ms=50) as producer:
        for time_ms in TIMES_MS:
            await producer.send(TOPIC, b"value", partition=1, timestamp_ms=time_ms)
    async with AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer:
        equal("beginning", await consumer.beginning_offsets([place]), {place: 0})
        equal("end", await consumer.end_offsets([place]), {place: 10})
        for time_ms, offset in BY_TIME:
            found = (await consumer.offsets_for_times({place: time_ms}))[place]
            found = (-1, None) if found is None else (found.offset, found.timestamp)
            equal(f"offsets_for_times at {time_ms}", found, (offset, TIMES_MS[offset] if offset >= 0 else None))


async def groups(admin):
    place = TopicPartition(TOPIC, 1)
    equal("no groups", await admin.list_consumer_groups(), [])
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUP, enable_auto_commit=False) as consumer:
        consumer.assign([place])
        await consumer.commit({place: OffsetAndMetadata(7, "by hand")})
        equal("committed", await consumer.committed(place), 7)
    equal("groups", [tuple(group[:2]) for group in await admin.list_consumer_groups()], [(GROUP, "")])
    found = await admin.list_consumer_group_offsets(GROUP)
    equal("offsets", found, {place: OffsetAndMetadata(7, "by hand")})
    (answer,) = await admin.describe_consumer_groups([GROUP])
    (group,) = answer.groups
    equal("described", tuple(group[:4]), (0, GROUP, "Empty", ""))
    deleted = await admin.delete_records({place: RecordsToDelete(before_offset=4)})
    equal("delete_records", deleted, {place: 4})


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()

    def part(function):
        async def with_admin():
            await function(admin)

        with_admin.__name__ = function.__name__
        return with_admin

    await run_async(part(topics), part(partitions), part(describe), offsets, part(groups))
    await admin.close()


asyncio.run(main())
