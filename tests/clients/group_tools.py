"""What the group tests ask and send through confluent-kafka, from beside the groups under test.

group_tools.py create BOOTSTRAP TOPIC PARTITIONS [SETTING=VALUE]...
group_tools.py begin BOOTSTRAP GROUP TOPIC PARTITIONS             commits 0 to all
group_tools.py feed BOOTSTRAP TOPIC PARTITIONS RECORDS_A_SECOND   sends to all in turn until its input ends
group_tools.py lag BOOTSTRAP GROUP TOPIC                          > {partition: [committed or -1001, end]}
group_tools.py ends BOOTSTRAP TOPIC...                            > {topic: {partition: [last stable offset, end]}}
group_tools.py group BOOTSTRAP GROUP                              > its description
"""

import json
import sys
import time

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from members import Stop

SECONDS_MAX = 60


def result(futures):
    (future,) = futures.values()
    return future.result(SECONDS_MAX)


def create(admin, topic, partitions, *settings):
    config = dict(setting.split("=", 1) for setting in settings)
    result(admin.create_topics([NewTopic(topic, int(partitions), 1, config=config)]))


def begin(admin, group, topic, partitions):
    places = [TopicPartition(topic, partition, 0) for partition in range(int(partitions))]
    done = result(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)]))
    refused = [place.error for place in done.topic_partitions if place.error]
    if refused:
        sys.exit(f"not committed: {refused}")


def feed(bootstrap, topic, partitions, rate):
    stopped = Stop()
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20})
    failed, sent, begun = [], 0, time.monotonic()
    while not stopped:
        while sent < (time.monotonic() - begun) * int(rate):
            producer.produce(
                topic, b"%d" % sent, partition=sent % int(partitions), on_delivery=lambda e, _: e and failed.append(e)
            )
            sent += 1
        producer.poll(0.05)
    left = producer.flush(60)
    if failed or left:
        sys.exit(f"{left} records not sent, {len(failed)} refused: {failed[:3]}")


def lag(admin, group, topic):
    count = len(admin.list_topics(topic, timeout=SECONDS_MAX).topics[topic].partitions)
    places = [TopicPartition(topic, partition) for partition in range(count)]
    found = result(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)]))
    committed = {place.partition: place.offset for place in found.topic_partitions}
    ends = admin.list_offsets({place: OffsetSpec.latest() for place in places})
    return {place.partition: [committed[place.partition], ends[place].result(SECONDS_MAX).offset] for place in places}


def ends(admin, *topics):
    def listed(topic, isolation):
        partitions = admin.list_topics(topic, timeout=SECONDS_MAX).topics[topic].partitions
        places = [TopicPartition(topic, partition) for partition in partitions]
        found = admin.list_offsets({place: OffsetSpec.latest() for place in places}, isolation_level=isolation)
        return {place.partition: future.result(SECONDS_MAX).offset for place, future in found.items()}

    levels = [IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED]
    stable, end = ({topic: listed(topic, level) for topic in topics} for level in levels)
    return {topic: {p: [stable[topic][p], end[topic][p]] for p in end[topic]} for topic in topics}


def describe(admin, group):
    found = result(admin.describe_consumer_groups([group]))

    def partitions(member):
        return sorted(place.partition for place in member.assignment.topic_partitions)

    members = [{"client": m.client_id, "instance": m.group_instance_id, "p": partitions(m)} for m in found.members]
    return {"state": found.state.name, "type": found.type.name, "assignor": found.partition_assignor, "members": members}


def main():
    verb, bootstrap, *rest = sys.argv[1:]
    if verb == "feed":
        return feed(bootstrap, *rest)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    verbs = {"create": create, "begin": begin, "lag": lag, "ends": ends, "group": describe}
    answer = verbs[verb](admin, *rest)
    print(json.dumps(answer))


main()
