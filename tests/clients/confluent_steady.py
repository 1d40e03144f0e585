"""confluent-kafka (librdkafka) writes on to the topics of steady.py, a codec each, until its standard input ends.

confluent_steady.py BOOTSTRAP FIRST_NUMBER RECORDS_A_SECOND

It says at last how many there are: {"e": "sent", "n": count}
"""

import sys
import time

from confluent_kafka import Producer

import members
import steady

FLUSH_SECONDS_MAX = 60


def main(bootstrap, first, rate):
    failed = []

    def delivered(number):
        def check(error, message):
            if error or message.offset() != number:
                failed.append(f"{number}: {error or message.offset()}")

        return check

    conf = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 100, "batch.size": 20_000}
    producers = {codec: Producer({**conf, "compression.type": codec}) for codec in steady.CODECS}
    stopped, sent, begun = members.Stop(), int(first), time.monotonic()
    while not stopped:
        while sent < int(first) + (time.monotonic() - begun) * int(rate):
            key, value = steady.record(sent)
            for codec, producer in producers.items():
                producer.produce(steady.topic(codec), value, key, partition=0, on_delivery=delivered(sent))
            sent += 1
        for producer in producers.values():
            producer.poll(0.01)
    left = sum(producer.flush(FLUSH_SECONDS_MAX) for producer in producers.values())
    if left or failed:
        sys.exit(f"{left} records not sent, {len(failed)} refused or elsewhere: {failed[:3]}")
    members.emit("sent", n=sent)


main(*sys.argv[1:])
