#!/usr/bin/env python3
"""Runs the real clients against the broker: every producer and codec, read back by every consumer, nothing altered.

Parts: comparison (the checks themselves), matrix (awkward records), corpus (a real text, kill -9 and restart in
between), admin (each client's interface), transactions (each client's), groups (members that come and go, restarts),
fire (an idempotent producer whose connections are cut and whose broker dies), compaction (a map that is written on and
on, rebuilt by every client), exactly_once (transactions, while clients and broker die), programs (what people run on
Kafka), zero_copy (strace). Names of parts as arguments choose them; without any, all run. Only by its name: soak (all
of it at once, for minutes).
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import compaction
import exactly_once
import fire
import groups
import programs
import samples
import soak
from broker import Broker

HERE = Path(__file__).resolve().parent
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
CLIENT_SECONDS_MAX = 300


@dataclass
class Client:
    """A client's driver, and what its interface cannot express; every client has every codec."""

    name: str
    command: list
    consumes: bool = True
    sets_timestamps: bool = True
    header_nulls: bool = True
    # kcat takes headers as arguments: no empty name, no zero byte in a value; and it shows values up to the first one.
    header_arguments: bool = False
    # 32-bit arithmetic in @platformatic/kafka's varints spoils timestamps further than 2^31 ms from the batch's first.
    timestamp_range_ms: int = None

    def sendable(self, record):
        """The record as this client can send it; a timestamp of None means "now"."""
        key, value, headers, timestamp = record
        if not self.header_nulls:
            headers = [(name, data or b"") for name, data in headers]
        if self.header_arguments:
            headers = [(name, data and data.replace(b"\0", b"")) for name, data in headers if name]
        if timestamp is not None and self.timestamp_range_ms:
            timestamp = 1_600_000_000_000 + timestamp % self.timestamp_range_ms
        return key, value, headers, timestamp if self.sets_timestamps else None

    def shown(self, headers):
        """Headers as this client shows them."""
        if not self.header_arguments:
            return headers
        return [(name, data and data.split(b"\0")[0]) for name, data in headers]

    def run(self, verb, *args, stdin=""):
        """Runs one verb of the driver; gives its standard output, or raises with what it said."""
        done = subprocess.run(
            [*map(str, self.command), verb, *args], input=stdin, text=True, capture_output=True, timeout=CLIENT_SECONDS_MAX
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} {verb} {' '.join(args)}: exit {done.returncode}\n{done.stderr[-3000:]}")
        return done.stdout

    def produce(self, broker, topic, codec, records, *flags):
        """Sends the records; gives them as they must be read back."""
        sent = [self.sendable(record) for record in records]
        self.run("produce", broker.address, topic, codec, *flags, stdin="".join(map(to_line, sent)))
        return sent

    def consume(self, broker, topics):
        """Everything that the topics hold, as {topic: [(partition, offset, (key, value, headers, timestamp))]}."""
        read = {topic: [] for topic in topics}
        for line in self.run("consume", broker.address, *topics).splitlines():
            record = json.loads(line)
            headers = [(name, unhex(data)) for name, data in record["h"]]
            found = unhex(record["k"]), unhex(record["v"]), headers, record["t"]
            read[record["topic"]].append((record["p"], record["o"], found))
        return read


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def to_line(record):
    key, value, headers, timestamp = record
    headers = [[name, data if data is None else data.hex()] for name, data in headers]
    line = {"k": key if key is None else key.hex(), "v": value if value is None else value.hex(), "h": headers}
    if timestamp is not None:
        line["t"] = timestamp
    return json.dumps(line) + "\n"


def clients(installed, rdkafka):
    """The clients that are installed, and the names of those that are not."""
    python = installed / "venv/bin/python"
    node = installed / "node/node"
    found = [
        Client("rdkafka", [rdkafka]),
        Client("confluent-kafka", [python, HERE / "confluent_client.py"]),
        Client("kafka-python", [python, HERE / "kafka_python_client.py"], header_nulls=False),
        Client("aiokafka", [python, HERE / "aiokafka_client.py"]),
        Client("kafkajs", [node, HERE / "kafkajs_client.js"], consumes=False, header_nulls=False),
        Client("platformatic", [node, HERE / "platformatic_client.js"], consumes=False, timestamp_range_ms=1 << 30),
    ]
    if not shutil.which("kcat"):
        return found, ["kcat"]
    kcat = [sys.executable, HERE / "kcat_client.py"]
    return [*found, Client("kcat", kcat, sets_timestamps=False, header_arguments=True)], []


class Checks:
    """Counts what passed and says at once what did not."""

    def __init__(self):
        self.passed, self.failures, self.skipped = 0, [], 0

    def check(self, name, problem):
        """`problem` is None when all is well."""
        if problem is None:
            self.passed += 1
        else:
            self.failures.append(name)
            say(f"FAILED {name}: {problem}")

    def skip(self, name, why):
        self.skipped += 1
        say(f"SKIPPED {name}: {why}")


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def short(record):
    def cut(data):
        return data if data is None or len(data) <= 40 else f"{data[:40]!r}... ({len(data)} bytes)"

    key, value, headers, timestamp = record
    return f"key {cut(key)}, value {cut(value)}, headers {headers}, timestamp {timestamp}"


def difference(sent, read, reader, since_ms):
    """None if one partition's records were read as they were sent, else what differs first."""
    if [offset for _, offset, _ in read] != list(range(len(read))):
        return f"offsets are not 0..{len(read) - 1}"
    for (_, offset, found), wanted in zip(read, sent):
        key, value, headers, timestamp = wanted
        if timestamp is None and since_ms <= found[3] <= time.time() * 1000 + 1:
            timestamp = found[3]
        wanted = key, value, reader.shown(headers), timestamp
        if wanted != found:
            return f"offset {offset}: sent {short(wanted)}, read {short(found)}"
    return None if len(sent) == len(read) else f"{len(sent)} records sent, {len(read)} read"


def produced(pool, jobs):
    """Runs (name, function) jobs two at a time; gives {name: what it gave, or the exception}."""

    def attempt(job):
        try:
            return job()
        except Exception as error:  # a client that fails is a result here
            return error

    return dict(zip([name for name, _ in jobs], pool.map(attempt, [job for _, job in jobs])))


def matrix(run):
    """Every client, codec and (once) idempotence to a topic of its own, created on first use, read by every consumer."""
    since_ms = int(time.time() * 1000) - 1
    broker = Broker(run.broker, run.scratch / "matrix")
    jobs = []
    for client in run.clients:
        for codec, *flags in [[codec] for codec in CODECS] + [["none", "idempotent"]]:
            topic = ".".join([client.name, codec, *flags])
            records = samples.awkward(topic)
            jobs.append((topic, lambda c=client, t=topic, z=codec, r=records, f=flags: c.produce(broker, t, z, r, *f)))
    sent = produced(run.pool, jobs)
    for topic, outcome in sent.items():
        run.checks.check(f"produce {topic}", str(outcome) if isinstance(outcome, Exception) else None)
    sent = {topic: records for topic, records in sent.items() if not isinstance(records, Exception)}
    for topic in sent:
        _, codec = topic.split(".")[:2]
        run.checks.check(f"codec of {topic}", codec_problem(broker, topic, codec))
    say(f"matrix: {len(sent)} topics of {samples.COUNT} awkward records produced")
    readers = [client for client in run.clients if client.consumes]
    read = produced(run.pool, [(c.name, lambda c=c: c.consume(broker, list(sent))) for c in readers])
    for reader in readers:
        seen = read[reader.name]
        for topic, records in sent.items():
            failed = str(seen) if isinstance(seen, Exception) else None
            problem = failed or difference(records, seen[topic], reader, since_ms)
            run.checks.check(f"{topic} read by {reader.name}", problem)
        say(f"matrix: read by {reader.name}")
    run.checks.check("the broker stops cleanly", exit_problem(broker.stop()))


def codec_problem(broker, topic, codec):
    """None if the topic's stored batches have this codec; clients may send a batch plain that would not shrink."""
    found = set()
    for path in broker.data.glob(f"{topic}-*/*.log"):
        data, at = path.read_bytes(), 0
        while at + 61 <= len(data):
            found.add(CODECS[data[at + 22] & 7])
            at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    return None if codec in found <= {codec, "none"} else f"its batches are {sorted(found)}"


def exit_problem(code):
    return None if code == 0 else f"exit code {code}"


def text_difference(sent, read):
    """None if the lines are all there, once, and in order within each partition."""
    values = {int(found[0]): found[1] for _, _, found in read}
    if len(read) != len(sent) or values != {int(record[0]): record[1] for record in sent}:
        return f"{len(sent)} lines sent, {len(read)} read, {len(values)} of them different"
    last = {}
    for partition, offset, found in read:
        before = last.get(partition, (-1, -1))
        if offset != before[0] + 1 or int(found[0]) <= before[1]:
            return f"partition {partition}: offset {offset} (line {found[0]}) follows {before}"
        last[partition] = offset, int(found[0])
    return None


def corpus(run):
    """A real text through each client and codec over three partitions; read, killed with -9, restarted, read again."""
    text = samples.corpus(run.installed / "corpus")
    broker = Broker(run.broker, run.scratch / "corpus", settings=["num.partitions=3"])
    jobs = [
        (f"{client.name}.{codec}", lambda c=client, z=codec: c.produce(broker, f"{c.name}.{z}", z, text))
        for client in run.clients
        for codec in CODECS
    ]
    begun = time.monotonic()
    sent = produced(run.pool, jobs)
    for topic, outcome in sent.items():
        run.checks.check(f"text {topic}", str(outcome) if isinstance(outcome, Exception) else None)
    topics = [topic for topic, outcome in sent.items() if not isinstance(outcome, Exception)]
    say(f"corpus: {len(text)} lines to each of {len(topics)} topics in {time.monotonic() - begun:.0f} s")
    readers = [client for client in run.clients if client.consumes]
    for turn, when in enumerate(["", " after kill -9"]):
        if turn == 1:
            broker.kill()
            broker.start()
        # Each reader has its share of the topics, and after the restart the next reader's.
        shares = [(reader, topics[(i + turn) % len(readers) :: len(readers)]) for i, reader in enumerate(readers)]
        read = produced(run.pool, [(r.name, lambda r=r, t=share: r.consume(broker, t)) for r, share in shares])
        for reader, share in shares:
            seen = read[reader.name]
            for topic in share:
                problem = str(seen) if isinstance(seen, Exception) else text_difference(text, seen[topic])
                run.checks.check(f"text {topic} read by {reader.name}{when}", problem)
        say(f"corpus: read back{when}")
    run.checks.check("the broker stops cleanly after a recovery", exit_problem(broker.stop()))


ADMINS = {
    "confluent-kafka": "confluent_admin.py",
    "kafka-python": "kafka_python_admin.py",
    "aiokafka": "aiokafka_admin.py",
    "kafkajs": "kafkajs_admin.js",
    "platformatic": "platformatic_admin.js",
    "rdkafka": None,
}


TRANSACTORS = {
    "confluent-kafka": "confluent_txn.py",
    "kafka-python": "kafka_python_txn.py",
    "aiokafka": "aiokafka_txn.py",
    "kafkajs": "kafkajs_txn.js",
}


def admin(run):
    """Each client's admin interface, part by part: see admin.py."""
    scripts(run, "admin", ADMINS, [])


def transactions(run):
    """Each client's transactions, part by part: see transacting.py."""
    scripts(run, "transacting", TRANSACTORS, ["transaction.abort.timed.out.transaction.cleanup.interval.ms=500"])


def scripts(run, what, by_client, settings):
    """Runs each client's script on a fresh broker, two at a time; each part of it is a check."""
    settings = ["group.initial.rebalance.delay.ms=0", *settings]

    def report(client):
        script = by_client[client.name]
        broker = Broker(run.broker, run.scratch / f"{what}-{client.name}", settings=settings)
        try:
            command = [client.command[0], HERE / script] if script else [*client.command, what]
            return Client(f"{client.name} {what}", command).run(broker.address)
        finally:
            broker.stop()

    jobs = [(client.name, lambda c=client: report(c)) for client in run.clients if client.name in by_client]
    for name, outcome in produced(run.pool, jobs).items():
        if isinstance(outcome, Exception):
            run.checks.check(f"{name} {what}", str(outcome))
            continue
        for line in outcome.splitlines():
            part, problem = line.split(": ", 1)
            run.checks.check(f"{name} {what} {part}", None if problem == "ok" else problem)
        say(f"{what}: {name}")


def zero_copy(run):
    """The bytes of a fetch go from the segment to the socket by sendfile; only batch headers are ever read."""
    if not shutil.which("strace") or not shutil.which("kcat"):
        return run.checks.skip("zero_copy", "needs Debian's strace and kcat")
    directory = run.scratch / "zero_copy"
    trace = directory.with_suffix(".strace")
    calls = "sendfile,read,pread64,readv,preadv,preadv2,mmap,splice,copy_file_range"
    wrapper = ["strace", "--follow-forks", "--decode-fds=path", f"--trace={calls}", "--output", str(trace)]
    broker = Broker(run.broker, directory, wrapper=wrapper)
    text = samples.corpus(run.installed / "corpus")
    kcat = next(client for client in run.clients if client.name == "kcat")
    kcat.produce(broker, "plain", "none", text)
    seen = kcat.consume(broker, ["plain"])["plain"]
    run.checks.check("text read under strace", text_difference(text, seen))
    broker.stop()
    stored = sum(path.stat().st_size for path in broker.data.glob("plain-0/*.log"))
    sent, copied = 0, 0
    for line in trace.read_text(errors="replace").splitlines():
        call = re.search(r"(\w+)\((.*plain-0/\d+\.log>.*)\) += (\d+)", line)
        if call and call[1] == "sendfile":
            sent += int(call[3])
        elif call:
            copied += int(call[3])
    say(f"zero_copy: .log {stored} bytes, by sendfile {sent}, otherwise {copied}")
    run.checks.check("sendfile carries every record byte", None if sent >= stored > 0 else f"{sent} of {stored} bytes")
    # Each fetch reads a few batch headers, to find where it starts and ends.
    run.checks.check("only headers are read", None if copied <= stored // 20 else f"{copied} of {stored} bytes were read")


def comparison(run):
    """The comparisons themselves can fail: each kind of damage is noticed, and nothing else is."""
    reader = next(client for client in run.clients if client.consumes and not client.header_arguments)
    sent = samples.awkward("comparison")
    read = [(0, offset, record) for offset, record in enumerate(sent)]
    run.checks.check("equal records are equal", difference(sent, read, reader, 0))

    def damaged(at, record):
        return [*read[:at], (0, at, record), *read[at + 1 :]]

    key, value, headers, timestamp = sent[150]
    damages = {
        "a lost last record": read[:-1],
        "a lost record": read[:10] + read[11:],
        "a record twice": [*read, (0, len(read), sent[0])],
        "records swapped": damaged(7, sent[8])[:8] + [(0, 8, sent[7])] + read[9:],
        "a key's byte": damaged(150, (key + b"x", value, headers, timestamp)),
        "null for empty": damaged(176, (None, *sent[176][1:])),
        "a value's byte": damaged(150, (key, value[:-1] + bytes([value[-1] ^ 1]), headers, timestamp)),
        "a header": damaged(150, (key, value, headers[:-1], timestamp)),
        "a header's order": damaged(150, (key, value, headers[::-1], timestamp)),
        "a timestamp": damaged(150, (key, value, headers, timestamp + 1)),
    }
    for name, altered in damages.items():
        run.checks.check(f"{name} is noticed", None if difference(sent, altered, reader, 0) else "it is not")
    lines = [(b"%d" % number, b"line", [], None) for number in range(9)]
    read = [(0, offset, record) for offset, record in enumerate(lines)]
    run.checks.check("equal lines are equal", text_difference(lines, read))
    for altered in (read[:-1], read[:3] + read[4:], [*read, read[0]], [(0, 0, lines[1]), (0, 1, lines[0]), *read[2:]]):
        run.checks.check("damaged lines are noticed", None if text_difference(lines, altered) else "they are not")


PARTS = {
    "comparison": comparison,
    "matrix": matrix,
    "corpus": corpus,
    "admin": admin,
    "transactions": transactions,
    "groups": groups.groups,
    "fire": fire.fire,
    "compaction": compaction.compaction,
    "exactly_once": exactly_once.exactly_once,
    "programs": programs.programs,
    "zero_copy": zero_copy,
}

# Only by name: it takes as long as it is told.
LONG_PARTS = {"soak": soak.soak}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", type=Path, required=True)
    parser.add_argument("--installed", type=Path, required=True)
    parser.add_argument("--rdkafka", type=Path, required=True)
    parser.add_argument("--client", action="append", help="only this client (may stand several times)")
    parser.add_argument("--case", action="append", help="only this case of groups, exactly_once or programs (can repeat)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of what is random")
    parser.add_argument("--seconds", type=int, help="how long fire, exactly_once and soak burn")
    parser.add_argument("parts", nargs="*", help=" ".join([*PARTS, *LONG_PARTS]))
    run = parser.parse_args()
    run.broker, run.installed, run.rdkafka = run.broker.resolve(), run.installed.resolve(), run.rdkafka.resolve()
    run.scratch = run.installed / "scratch"
    os.environ["NODE_PATH"] = str(run.installed / "node/node_modules")
    os.environ["KAFKAJS_NO_PARTITIONER_WARNING"] = "1"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    run.pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2))
    run.checks = Checks()
    run.say = say
    run.jobs = lambda jobs: produced(run.pool, jobs)
    say(f"--seed {run.seed}")
    run.clients, missing = clients(run.installed, run.rdkafka)
    run.clients = [client for client in run.clients if not run.client or client.name in run.client]
    for name in missing:
        run.checks.skip(name, "not installed, and apt could not be used")
    for part in run.parts or PARTS:
        begun = time.monotonic()
        try:
            {**PARTS, **LONG_PARTS}[part](run)
        except Exception:
            run.checks.check(part, traceback.format_exc())
        say(f"{part}: {time.monotonic() - begun:.0f} s")
    checks = run.checks
    # Once more at the end: whoever looks at a long run looks there.
    for name in checks.failures:
        print(f"FAILED {name}")
    print(f"clients: {checks.passed} passed, {len(checks.failures)} failed, {checks.skipped} skipped")
    sys.exit(1 if checks.failures or not checks.passed else 0)


if __name__ == "__main__":
    main()
