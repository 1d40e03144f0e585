"""Compaction under real clients: a map is written on and on, in every codec, and each client that reads it from the
start rebuilds it, at any moment. The broker rewrites batches with encoders of its own; every client must read them.
"""

import time
from pathlib import Path

import groups
import steady
from broker import Broker
from process import Process

HERE = Path(__file__).resolve().parent
PHASES, PHASE_SECONDS, RECORDS_A_SECOND = 3, 3, 300
CLEAN_SECONDS_MAX = 60
REWRITTEN_MIN = 3
SETTINGS = ["cleanup.policy=compact", "segment.bytes=150000", "min.cleanable.dirty.ratio=0.01"]
HEADER_BYTES = 61


def fault(read, ended, written):
    """What is wrong with what a client read, [(offset, (key, value))], or None. `ended` records were there when it
    began, `written` when it had ended: what it lacks, it lacks because something newer was written.
    """
    offsets = [offset for offset, _ in read]
    if offsets != sorted(set(offsets)):
        return "offsets do not rise"
    if not offsets or offsets[-1] + 1 < ended:
        return f"it read up to {offsets[-1:]} of {ended}"
    newest = {}
    for offset, pair in read:
        if pair != steady.record(offset):
            return f"offset {offset} is {pair}"
        newest[pair[0]] = offset
    end = offsets[-1] + 1
    last = {steady.record(number)[0]: number for number in range(written)}
    for number in range(end):
        key = steady.record(number)[0]
        if newest.get(key, -1) < number and last[key] < end:
            return f"{key}: its newest is at {last[key]}, and what was read at {newest.get(key)}"
    return None


def judge_itself(check):
    """Each kind of fault is noticed, and a sound history has none."""
    read = [(number, steady.record(number)) for number in range(100)]
    check("a whole log has no fault", fault(read, 100, 100))
    last = {steady.record(number)[0]: number for number in range(100)}
    compacted = [(number, pair) for number, pair in read if last[pair[0]] == number]
    check("a compacted log has no fault", fault(compacted, 100, 100))
    check("what was compacted meanwhile is no fault", fault(read[5:80], 80, 100) if last[read[4][1][0]] >= 80 else None)
    wrong = {
        "a lost key": (compacted[:3] + compacted[4:], 100, 100),
        "a lost end": (compacted[:-1], 100, 100),
        "another value": ([*compacted[:-1], (99, (compacted[-1][1][0], b"?"))], 100, 100),
        "records swapped": ([*compacted[:-2], compacted[-1], compacted[-2]], 100, 100),
    }
    for name, history in wrong.items():
        check(f"{name} is noticed", None if fault(*history) else "it is not")


def headers(path):
    """(codec, offsets, records) of each batch in a segment."""
    data, at = path.read_bytes(), 0
    while at + HEADER_BYTES <= len(data):
        offsets = int.from_bytes(data[at + 23 : at + 27], "big") + 1
        yield steady.CODECS[data[at + 22] & 7], offsets, int.from_bytes(data[at + 57 : at + 61], "big")
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")


def await_clean(broker):
    """Waits until all but the active segments were compacted; gives {codec: batches that were rewritten}."""
    rewritten, deadline = {}, time.monotonic() + CLEAN_SECONDS_MAX
    for codec in steady.CODECS:
        while True:
            *sealed, active = sorted((broker.data / f"{steady.topic(codec)}-0").glob("*.log"))
            lines = (broker.data / "cleaner-offset-checkpoint").read_text().splitlines()
            clean_to = [int(line.split()[2]) for line in lines if line.startswith(f"{steady.topic(codec)} ")]
            if clean_to == [int(active.stem)]:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{codec} is compacted up to {clean_to}, not to {active.stem}\n{broker.log_tail()}")
            time.sleep(0.05)
        batches = [batch for path in sealed for batch in headers(path)]
        rewritten[codec] = sum(found == codec and 0 < records < offsets for found, offsets, records in batches)
    return rewritten


def compaction(run):
    """The part of run.py."""

    def check(what, problem):
        run.checks.check(f"compaction: {what}", problem)

    def read(readers, ended):
        """Reads all topics by each; returns a function that checks what they got, once it is known what was written."""
        topics = [steady.topic(codec) for codec in steady.CODECS]
        got = run.jobs([(client.name, lambda c=client: client_records(c, topics)) for client in readers])

        def judge(when, written):
            for name, found in got.items():
                for topic in topics:
                    problem = str(found) if isinstance(found, Exception) else fault(found[topic], ended, written)
                    check(f"{topic} read by {name} {when}", problem)

        return judge

    def client_records(client, topics):
        found = client.consume(broker, topics)
        return {topic: [(offset, pair[:2]) for _, offset, pair in found[topic]] for topic in topics}

    judge_itself(check)
    writer = next((client for client in run.clients if client.name == "confluent-kafka"), None)
    if writer is None:
        return
    readers = [client for client in run.clients if client.consumes or client.name == "kafkajs"]
    broker = Broker(run.broker, run.scratch / "compaction", ["log.cleaner.backoff.ms=20", "group.initial.rebalance.delay.ms=0"])
    for codec in steady.CODECS:
        groups.tool(run, broker, "create", steady.topic(codec), 1, *SETTINGS)
    written = 0
    for phase in range(PHASES):
        command = [writer.command[0], HERE / "confluent_steady.py", broker.address, written, RECORDS_A_SECOND]
        process = Process("steady", command)
        try:
            time.sleep(PHASE_SECONDS)
            # kcat reads until it is at an end, and here there is none.
            judge = read([client for client in readers[phase::PHASES] if client.name != "kcat"], written)
        finally:
            process.leave()
            process.end(CLEAN_SECONDS_MAX)
        check(f"phase {phase} is written", process.failure())
        written = process.said("sent")[-1]["n"]
        judge("while it is written", written)
        read(readers[(phase + 1) % PHASES :: PHASES], written)("while it is compacted", written)
    rewritten = await_clean(broker)
    for codec, batches in rewritten.items():
        check(f"batches of {codec} were rewritten", None if batches >= REWRITTEN_MIN else f"{batches} were")
    read(readers, written)("once it is compacted", written)
    run.say(f"compaction: {written} records to each topic; batches rewritten: {rewritten}")
    check("the broker stops cleanly", broker.stop() or None)
