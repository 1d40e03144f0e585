"""librdkafka's idempotent producer under fire: connections are cut at random, the broker dies every few seconds."""

import random
from pathlib import Path

import chaos
import groups
from broker import Broker
from process import Process

HERE = Path(__file__).resolve().parent
PARTITIONS, RECORDS_A_SECOND = 3, 200
SECONDS = 25
END_SECONDS_MAX = 150
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def faults(sent, delivered, log):
    """What is wrong, as texts. `sent` is {producer: count}, `delivered` {(producer, number): (partition, offset)},
    `log` [(partition, offset, (producer, number))] as it was read.
    """
    found, places, last = [], {}, {}
    for partition, offset, who in log:
        if who in places:
            found.append(f"{who} is at {places[who]} and at {partition, offset}")
        places[who] = partition, offset
        producer, number = who
        if number <= last.get((producer, partition), -1):
            found.append(f"{who} in partition {partition} follows {last[producer, partition]}")
        last[producer, partition] = number
    for who, place in delivered.items():
        if places.get(who) != place:
            found.append(f"{who} was delivered to {place} and is at {places.get(who)}")
    for producer, count in sent.items():
        lost = [number for number in range(count) if (producer, number) not in delivered]
        if lost:
            found.append(f"{len(lost)} of {producer} were not delivered, such as {lost[:3]}")
    return found


def judge_itself(check):
    """Each kind of fault is noticed, and a sound history has none."""
    log = [(p, offset, ("a", offset * 2 + p)) for p in (0, 1) for offset in range(3)]
    sent, delivered = {"a": 6}, {who: (p, offset) for p, offset, who in log}
    check("a sound history has no fault", "; ".join(faults(sent, delivered, log)) or None)
    wrong = {
        "a lost record": (sent, delivered, log[:-1]),
        "a record twice": (sent, delivered, [*log, (1, 3, ("a", 5))]),
        "records swapped": (sent, delivered, [(0, 0, ("a", 2)), (0, 1, ("a", 0)), *log[2:]]),
        "another offset": (sent, {**delivered, ("a", 5): (1, 1)}, log),
        "a missing report": ({"a": 7}, delivered, log),
    }
    for name, history in wrong.items():
        check(f"{name} is noticed", None if faults(*history) else "it is not")


def fire(run):
    """The part of run.py."""

    def check(what, problem):
        run.checks.check(f"fire: {what}", problem)

    judge_itself(check)
    client = next((client for client in run.clients if client.name == "confluent-kafka"), None)
    if client is None:
        return
    rng = random.Random(f"fire {run.seed}")
    proxy = chaos.Proxy(rng.random())
    broker = Broker(run.broker, run.scratch / "fire", [f"advertised.listeners=PLAINTEXT://{proxy.address}"])
    proxy.target = broker.address
    groups.tool(run, broker, "create", "fire", PARTITIONS, "segment.bytes=100000")
    proxy.calm = False
    driver = [client.command[0], HERE / "confluent_fire.py", proxy.address, "fire", PARTITIONS]
    producers = [Process(codec, [*driver, codec, codec, RECORDS_A_SECOND]) for codec in CODECS]
    try:
        problems = chaos.burn(broker, rng, run.seconds or SECONDS)
        proxy.calm = True
    finally:
        for producer in producers:
            producer.leave()
        for producer in producers:
            producer.end(END_SECONDS_MAX)
    check("the broker stops cleanly", "; ".join(problems) or None)
    failures = [failure for failure in (producer.failure() for producer in producers) if failure]
    refused = [str(event) for producer in producers for event in producer.said("refused")]
    check("no producer gives up", "; ".join([*failures, *refused[:3]]) or None)
    sent = {producer.name: event["n"] for producer in producers for event in producer.said("sent")}
    reports = [(producer.name, event["r"]) for producer in producers for event in producer.said("delivered")]
    delivered = {(name, number): (p, offset) for name, some in reports for number, p, offset in some}
    broker.kill()
    broker.start()
    log = [(p, offset, author(value)) for p, offset, (_, value, _, _) in client.consume(broker, ["fire"])["fire"]]
    found = faults(sent, delivered, log)
    check("nothing lost, twice or out of order", "; ".join(found[:5]) + f" ({len(found)} in all)" if found else None)
    check("every producer sent", None if all(sent.get(codec) for codec in CODECS) else str(sent))
    run.say(f"fire: {broker.starts} brokers, {proxy.connections} connections, {len(log)} records")
    check("the broker stops cleanly at last", broker.stop() or None)
    proxy.close()


def author(value):
    producer, number, _ = value.split(b":")
    return producer.decode(), int(number)
