"""What an operator does while the soak goes on, by confluent-kafka's admin client: topics come and go, one ages, and of
one the records are deleted. Runs until its standard input ends.

soak_upkeep.py BOOTSTRAP SEED

    {"e": "gone", "topic": name}     a topic was made, written to and deleted
    {"e": "again", "why": text}      the broker was away
    {"e": "fatal", "why": text}      an answer that cannot be
"""

import random
import sys
import time

from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

import members

SECONDS_MAX = 30
AGEING = {"retention.ms": "2000", "segment.ms": "1000", "segment.bytes": "100000"}


def done(futures):
    (future,) = futures.values()
    return future.result(SECONDS_MAX)


class Upkeep:
    def __init__(self, bootstrap, seed):
        conf = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 500}
        self.admin, self.random, self.count = AdminClient(conf), random.Random(f"upkeep {seed}"), 0
        self.producer = Producer({**conf, "message.timeout.ms": 20_000})
        self.start = {}

    def made(self, topic, config):
        try:
            done(self.admin.create_topics([NewTopic(topic, 1, 1, config=config)]))
        except KafkaException as error:
            # An answer that was lost with the broker: it is there.
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise

    def write(self, topic, count):
        for number in range(count):
            self.producer.produce(topic, b"x" * self.random.randrange(2000), b"%d" % number)
        self.producer.flush(SECONDS_MAX)

    def come_and_go(self):
        topic = f"passing.{self.count}"
        self.count += 1
        self.made(topic, {})
        self.write(topic, 50)
        done(self.admin.delete_topics([topic]))
        members.emit("gone", topic=topic)

    def trim(self):
        place = TopicPartition("trimmed", 0)
        end = done(self.admin.list_offsets({place: OffsetSpec.latest()})).offset
        low = done(self.admin.delete_records([TopicPartition("trimmed", 0, self.random.randint(0, end))])).low_watermark
        if low < self.start.get("trimmed", 0):
            members.emit("fatal", why=f"the log start fell from {self.start} to {low}")
            sys.exit(3)
        self.start["trimmed"] = low

    def turn(self):
        self.come_and_go()
        for topic, config in [("ageing", AGEING), ("trimmed", {"segment.bytes": "100000"})]:
            self.made(topic, config)
            self.write(topic, 100)
        self.trim()


def main(bootstrap, seed):
    stopped, upkeep = members.Stop(), Upkeep(bootstrap, seed)
    while not stopped:
        try:
            upkeep.turn()
        except Exception as error:  # the broker dies at any moment
            members.emit("again", why=repr(error))
        time.sleep(0.5)


main(*sys.argv[1:])
