"""A soak: everything at once on one broker, for minutes, while clients and the broker are killed at random.

Idempotent producers in all codecs (as in fire.py), each client's own producer in all codecs, read-process-write loops
in transactions (exactly_once.py), a mixed group whose members come and go (groups.py), maps that are compacted
(compaction.py), and topics that come and go, age and have records deleted (soak_upkeep.py). At the end every record
that was acknowledged is read back by its offset, every checksum compared, no group lags, `ottla verify` is silent but
for hints, and the broker's memory was flat over its longest life.
"""

import random
import subprocess
import threading
import time
import zlib
from contextlib import ExitStack
from pathlib import Path

import chaos
import compaction
import exactly_once
import fire
import groups
import steady
from broker import Broker
from process import Process

HERE = Path(__file__).resolve().parent
SECONDS = 60
# A broker lives between so long and a fifth of the whole: its memory is judged over the longest life.
LIFE_SECONDS_MIN = 4
SAMPLE_SECONDS = 0.5
# The first half of a life warms up. What is left may grow by so much: a page of everything that is cached, no leak.
GROWTH_KIB_MAX = 4096
STEADY_A_SECOND, FIRE_A_SECOND, ROUND = 40, 60, 200
SETTINGS = [
    *groups.SETTINGS,
    "log.cleaner.backoff.ms=500",
    "log.retention.check.interval.ms=1000",
    "log.segment.delete.delay.ms=1000",
]


class Memory:
    """The broker's resident memory, sampled: of each process a list of (seconds since 1970, KiB)."""

    def __init__(self, broker):
        self.broker, self.lives, self.ended = broker, {}, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            pid = self.broker.process.pid
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            held = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
            if held:
                self.lives.setdefault(pid, []).append((time.time(), held[0]))

    def end(self):
        self.ended.set()
        self.thread.join()

    def longest(self):
        return max(self.lives.values(), key=lambda life: life[-1][0] - life[0][0], default=[])


def growth(life):
    """By how many KiB memory grew in the second half of a life, by the line of least squares; and its length."""
    half = [sample for sample in life if sample[0] >= (life[0][0] + life[-1][0]) / 2]
    mean_t, mean_m = (sum(sample[at] for sample in half) / len(half) for at in (0, 1))
    spread = sum((t - mean_t) ** 2 for t, _ in half)
    slope = sum((t - mean_t) * (m - mean_m) for t, m in half) / spread if spread else 0
    return slope * (half[-1][0] - half[0][0]), half[-1][0] - half[0][0]


def checked(author, number):
    """A record that carries its own checksum, as key and value."""
    key = f"{author}/{number}".encode()
    rng = random.Random(key)
    body = rng.randbytes(rng.choice([0, 10, 300, 5000])) if rng.random() < 0.7 else b"so it goes " * rng.randrange(300)
    return key, b"%08x" % zlib.crc32(key + body) + body


def is_sound(key, value):
    return value[:8] == b"%08x" % zlib.crc32(key + value[8:])


def rounds_faults(acked, tried, read):
    """What is wrong with what the clients' own producers sent: sets of keys, and [(key, value)] as it was read."""
    found = [f"{key} is not as it was sent" for key, value in read if not is_sound(key, value)]
    keys = {key for key, _ in read}
    found += [f"{key} was acknowledged and is lost" for key in sorted(acked - keys)]
    return found + [f"{key} was never sent" for key in sorted(keys - tried)]


def judge_itself(check):
    """Each kind of fault is noticed, and a sound history has none."""
    read = [checked("a", number) for number in range(9)]
    keys = {key for key, _ in read}
    check("a sound history has no fault", "; ".join(rounds_faults(keys, keys, read)) or None)
    key, value = read[4]
    for name, history in {
        "a lost record": (keys, keys, read[1:]),
        "a record from nowhere": (keys - {key}, keys - {key}, read),
        "a flipped bit": (keys, keys, [*read[:4], (key, value[:-1] + bytes([value[-1] ^ 1])), *read[5:]]),
    }.items():
        check(f"{name} is noticed", None if rounds_faults(*history) else "it is not")
    flat = [(float(t), 20_000 + t % 7) for t in range(100)]
    rising = [(t, held + 200 * t) for t, held in flat]
    check("flat memory is flat", None if growth(flat)[0] < GROWTH_KIB_MAX else "it is not")
    check("rising memory is noticed", None if growth(rising)[0] > GROWTH_KIB_MAX else "it is not")


class Rounds:
    """One client that produces again and again, in a codec after the other; a round that fails may be there or not."""

    def __init__(self, run, broker, client, seed):
        self.broker, self.client, self.random = broker, client, random.Random(f"{client.name} {seed}")
        self.topic = f"rounds.{client.name}"
        groups.tool(run, broker, "create", self.topic, 2, "segment.bytes=500000")
        self.acked, self.tried, self.failed, self.count = set(), set(), 0, 0

    def burn(self, until):
        while time.monotonic() < until:
            records = [(*checked(self.client.name, self.count + n), [], None) for n in range(ROUND)]
            self.count += ROUND
            keys = {key for key, *_ in records}
            self.tried |= keys
            codec = self.random.choice(steady.CODECS)
            flags = ["idempotent"] if self.random.random() < 0.3 else []
            try:
                self.client.produce(self.broker, self.topic, codec, records, *flags)
                self.acked |= keys
            except (RuntimeError, subprocess.TimeoutExpired):
                self.failed += 1
            time.sleep(self.random.uniform(0, 1))

    def judge(self, check, reader):
        read = [(key, value) for _, _, (key, value, _, _) in reader.consume(self.broker, [self.topic])[self.topic]]
        found = rounds_faults(self.acked, self.tried, read)
        check(f"{self.topic} read by {reader.name}", "; ".join(found[:5]) + f" ({len(found)} in all)" if found else None)
        check(f"{self.topic}: some rounds are acknowledged", None if self.acked else f"{self.failed} failed")


class Fire:
    """Idempotent producers, one a codec, whose every record has a place that they are told."""

    def __init__(self, run, broker, client):
        self.broker, self.client = broker, client
        groups.tool(run, broker, "create", "fire", fire.PARTITIONS, "segment.bytes=500000")
        driver = [client.command[0], HERE / "confluent_fire.py", broker.address, "fire", fire.PARTITIONS]
        self.producers = [Process(codec, [*driver, codec, codec, FIRE_A_SECOND]) for codec in fire.CODECS]

    def end(self):
        for producer in self.producers:
            producer.leave()
        for producer in self.producers:
            producer.end(fire.END_SECONDS_MAX)

    def judge(self, check):
        failures = [failure for failure in (producer.failure() for producer in self.producers) if failure]
        check("no idempotent producer gives up", "; ".join(failures) or None)
        sent = {producer.name: event["n"] for producer in self.producers for event in producer.said("sent")}
        reports = [(producer.name, event["r"]) for producer in self.producers for event in producer.said("delivered")]
        delivered = {(name, number): (p, offset) for name, some in reports for number, p, offset in some}
        read = self.client.consume(self.broker, ["fire"])["fire"]
        log = [(p, offset, fire.author(value)) for p, offset, (_, value, _, _) in read]
        found = fire.faults(sent, delivered, log)
        check("every place is as it was told", "; ".join(found[:5]) + f" ({len(found)} in all)" if found else None)
        return len(delivered)


class Maps:
    """Compacted topics, written on and on."""

    def __init__(self, run, broker, client):
        self.run, self.broker, self.client = run, broker, client
        for codec in steady.CODECS:
            groups.tool(run, broker, "create", steady.topic(codec), 1, *compaction.SETTINGS)
        command = [client.command[0], HERE / "confluent_steady.py", broker.address, 0, STEADY_A_SECOND]
        self.process = Process("steady", command)

    def end(self):
        self.process.leave()
        self.process.end(fire.END_SECONDS_MAX)

    def judge(self, check, reader):
        check("the maps are written", self.process.failure())
        written = self.process.said("sent")[-1]["n"]
        topics = [steady.topic(codec) for codec in steady.CODECS]
        found = reader.consume(self.broker, topics)
        for topic in topics:
            read = [(offset, pair[:2]) for _, offset, pair in found[topic]]
            check(f"{topic} read by {reader.name}", compaction.fault(read, written, written))
        return written * len(topics)


def verified(run, broker):
    """What `ottla verify` finds besides hints, and its line of figures."""
    done = subprocess.run([run.broker, "verify", "--data", broker.data], capture_output=True, text=True, timeout=600)
    *findings, figures = done.stdout.splitlines() or [done.stderr]
    worse = [line for line in findings if not line.startswith("hint ")]
    return "\n".join(worse[:5]) or (None if done.returncode == 0 else f"exit code {done.returncode}: {figures}"), figures


def soak(run):
    """The part of run.py."""

    def check(what, problem):
        run.checks.check(f"soak: {what}", problem)

    judge_itself(check)
    seconds = run.seconds or SECONDS
    client = {client.name: client for client in run.clients}
    confluent = client.get("confluent-kafka")
    if confluent is None:
        return run.checks.skip("soak", "needs confluent-kafka")
    readers = [client for client in run.clients if client.consumes and client.name != "kcat"]
    rng = random.Random(f"soak {run.seed}")
    broker = Broker(run.broker, run.scratch / "soak", SETTINGS)
    groups.tool(run, broker, "create", exactly_once.SOURCE, exactly_once.INPUTS, "segment.bytes=200000")
    memory, acks, failed = Memory(broker), 0, len(run.checks.failures)
    with ExitStack() as stack:
        stack.callback(memory.end)
        loops = [
            exactly_once.Loop(run, broker, "confluent", "confluent_loop.py", [[], []]),
            exactly_once.Loop(run, broker, "aiokafka", "aiokafka_loop.py", [[0, 1], [2, 3]]),
        ]
        stack.callback(lambda: [end(process) for loop in loops for process in everyone(loop)])
        for loop in loops:
            loop.watch("read_committed", "read_committed")
        mixed = {"protocol": "classic", "assignor": "roundrobin"}
        kinds = [(member, mixed) for member in run.clients if member.name != "kcat"]
        group = stack.enter_context(groups.Group(run, broker, "mixed", [kind for kind, _ in kinds]))
        group.tolerated = ("KafkaJSGroupCoordinatorNotFound",)
        for _ in range(groups.MEMBERS):
            group.start_one(kinds)
        burning, maps = Fire(run, broker, confluent), Maps(run, broker, confluent)
        upkeep = Process("upkeep", [confluent.command[0], HERE / "soak_upkeep.py", broker.address, run.seed])
        rounds = [Rounds(run, broker, client, run.seed) for client in run.clients if client.name != "kcat"]
        stack.callback(lambda: [end(process) for process in [*burning.producers, maps.process, upkeep]])
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=one.burn, args=(until,)) for one in rounds]
        threads.append(threading.Thread(target=group.churn, args=(kinds, seconds)))
        threads.append(threading.Thread(target=tell, args=(run, until, broker, memory)))
        threads += [threading.Thread(target=tend, args=(loops, until))]
        for thread in threads:
            thread.start()
        problems = exactly_once.fed(
            run, broker, lambda: chaos.burn(broker, rng, seconds, (LIFE_SECONDS_MIN, seconds / 5)), loops
        )
        for thread in threads:
            thread.join()
        check("the broker stops cleanly", "; ".join(problems) or None)
        run.say("soak: the fire is out; reading everything back")
        burning.end()
        maps.end()
        upkeep.leave()
        upkeep.end()
        check("topics come and go", upkeep.failure())
        for loop in loops:
            exactly_once.judged(run, loop)
        group.settle("at last")
        group.consumed()
        group.finish()
        acks += burning.judge(check) + maps.judge(check, rng.choice(readers))
        for one in rounds:
            one.judge(check, rng.choice(readers))
            acks += len(one.acked)
    life = memory.longest()
    grown, over = growth(life) if len(life) > 3 else (0, 0)
    what = f"{grown:.0f} KiB in {over:.0f} s" if grown > GROWTH_KIB_MAX else None
    check("memory is flat", what)
    check("the broker stops cleanly at last", broker.stop() or None)
    problem, figures = verified(run, broker)
    check("ottla verify is silent", problem)
    run.say(f"soak: {figures}")
    lost = len(run.checks.failures) - failed
    held = max((held for _, held in life), default=0)
    topics = len(upkeep.said("gone"))
    print(
        f"soak: seconds={seconds} brokers={broker.starts} acks={acks} topics={topics} lost={lost}"
        f" rss_max={held} KiB grown={grown:.0f} KiB in {over:.0f} s seed={run.seed}",
        flush=True,
    )


def everyone(loop):
    return [*(seat.process for seat in loop.seats), *(reader for _, reader in loop.readers.values())]


def end(process):
    if process and process.lives():
        process.kill()


def tend(loops, until):
    """Kills processors and brings them back."""
    while time.monotonic() < until:
        for loop in loops:
            loop.tend(kills=True)
        time.sleep(0.2)


def tell(run, until, broker, memory):
    """Says how it goes."""
    while (left := until - time.monotonic()) > 0:
        held = [life[-1][1] for life in list(memory.lives.values())[-1:]]
        run.say(f"soak: {left:.0f} s left, {broker.starts} brokers, {held[0] if held else 0} KiB")
        time.sleep(min(10, max(left, 0.1)))
