"""confluent-kafka (librdkafka) as an idempotent producer under fire; it sends until its standard input ends.

confluent_fire.py BOOTSTRAP TOPIC PARTITIONS NAME CODEC RECORDS_A_SECOND

The values are NAME:0, NAME:1... It says what was delivered, and at last how many it sent:

    {"e": "delivered", "r": [[number, partition, offset]...]}
    {"e": "refused", "n": number, "why": text}
    {"e": "fatal", "why": text}
    {"e": "sent", "n": count}
"""

import sys
import time

from confluent_kafka import Producer

import members

FLUSH_SECONDS_MAX = 120


def main(bootstrap, topic, partitions, name, codec, rate):
    def failed(error):
        if error.fatal():
            members.emit("fatal", why=str(error))

    conf = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec, "error_cb": failed}
    # Many small batches, so that several are on their way when a connection is cut.
    producer = Producer({**conf, "linger.ms": 5, "batch.size": 20_000, "reconnect.backoff.max.ms": 500})
    reports, stopped, sent, begun = [], members.Stop(), 0, time.monotonic()

    def delivered(error, message):
        number = int(message.value().split(b":")[1])
        if error is None:
            reports.append([number, message.partition(), message.offset()])
        else:
            members.emit("refused", n=number, why=str(error))

    def poll(seconds):
        producer.poll(seconds)
        if reports:
            members.emit("delivered", r=reports)
            reports.clear()

    while not stopped:
        while sent < (time.monotonic() - begun) * int(rate):
            value = f"{name}:{sent}:{'x' * (sent * 37 % 900)}".encode()
            producer.produce(topic, value, partition=sent % int(partitions), on_delivery=delivered)
            sent += 1
        poll(0.02)
    deadline = time.monotonic() + FLUSH_SECONDS_MAX
    while len(producer) and time.monotonic() < deadline:
        poll(0.2)
    members.emit("sent", n=sent)


main(*sys.argv[1:])
