"""Exactly once under fire: read-process-write loops whose processors and broker are killed and connections are cut.

Processors read numbered inputs and write to two topics in transactions (see loops.py); readers of both isolation
levels watch all along; what all of them said is judged by transaction_log.py.
"""

import json
import random
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import chaos
import groups
import transaction_log
from broker import Broker
from process import Process
from transaction_log import History, Reader, Transaction

HERE = Path(__file__).resolve().parent
SECONDS = 45
SOURCE, INPUTS, OUTPUTS, RECORDS_A_SECOND = "numbers", 4, 2, 100
REST_SECONDS_MAX = 300
# Of a processor that was killed: mostly it is back soon, now and then only after its group has missed it.
ABSENCES_SECONDS = [0, 0.3, 1, 2, 8]
LIFE_SECONDS = 6
# aiokafka's sender ends for good when its connection is lost while it looks for a coordinator: _find_coordinator of its
# sender.py raises what _sender_routine takes for a bug. A new process is the only way on.
AIOKAFKA_GIVES_UP = "in _find_coordinator"
SETTINGS = ["group.initial.rebalance.delay.ms=100"]


@dataclass
class Seat:
    """A processor's transactional id, and who has it now."""

    name: str
    own: list
    lives: int = 0
    process: Process = None
    back: float = 0


class Loop:
    """One client's processors, and all that were; the readers of what they write."""

    def __init__(self, run, broker, name, script, shares):
        self.run, self.broker, self.name = run, broker, name
        self.command = [run.installed / "venv/bin/python", HERE / script]
        self.random = random.Random(f"{name} {run.seed}")
        self.topics = [f"{name}.a", f"{name}.b"]
        for topic in self.topics:
            groups.tool(run, broker, "create", topic, OUTPUTS, "segment.bytes=200000")
        self.seats = [Seat(f"{name}-{number}", own) for number, own in enumerate(shares)]
        self.dead, self.readers = [], {}

    def watch(self, name, isolation, command=None):
        verb = ["observe", self.broker.address, isolation, ",".join(self.topics), OUTPUTS]
        self.readers[name] = isolation, Process(f"{self.name} {name}", [*(command or self.command), *verb])

    def sit(self, seat):
        seat.lives += 1
        name = f"{seat.name}.{seat.lives}"
        verb = ["process", self.broker.address, self.name, SOURCE, ",".join(self.topics), OUTPUTS]
        seat.process = Process(name, [*self.command, *verb, name, seat.name, self.run.seed, *seat.own])

    def tend(self, kills):
        """Starts who is to come back, and kills some."""
        for seat in self.seats:
            now = time.monotonic()
            if seat.process is None:
                if now >= seat.back:
                    self.sit(seat)
            elif not seat.process.lives():
                seat.process.end()
                self.gone(seat, 0.5)
            elif kills and self.random.random() < 0.2 / LIFE_SECONDS:
                seat.process.kill()
                self.gone(seat, self.random.choice(ABSENCES_SECONDS))

    def gone(self, seat, seconds):
        self.dead.append(seat.process)
        seat.process, seat.back = None, time.monotonic() + seconds

    def lag(self):
        """{partition: (committed, end)} of the inputs."""
        return {int(p): lag for p, lag in groups.tool(self.run, self.broker, "lag", self.name, SOURCE).items()}

    def rest(self):
        """Lets the processors end."""
        for seat in self.seats:
            if seat.process:
                seat.process.leave()
        for seat in self.seats:
            if seat.process:
                seat.process.end()
                self.gone(seat, 0)

    def ends(self):
        """{(topic, partition): (last stable offset, end)}"""
        found = groups.tool(self.run, self.broker, "ends", *self.topics)
        return {(topic, int(p)): tuple(ends) for topic, some in found.items() for p, ends in some.items()}

    def behind(self, ends):
        """The readers that are not at the end, and where they are."""
        found = {}
        for name, (_, process) in self.readers.items():
            places = {(topic, p): offset for event in process.said("at") for topic, p, offset in event["p"]}
            if any(places.get(place, 0) < end for place, (_, end) in ends.items() if end > 0):
                found[name] = places
        return found

    def transactions(self):
        found = {}
        for process in self.dead:
            for event in process.events:
                if event["e"] == "ending":
                    asked = event["t"] if event["commit"] else None
                    found[event["x"]] = Transaction([tuple(place) for place in event["in"]], asked)
                elif event["e"] in ("committed", "aborted") and event["x"] in found:
                    found[event["x"]].result, found[event["x"]].told = event["e"], event["t"]
        return found

    def history(self, lag, ends):
        readers = {}
        for name, (isolation, process) in self.readers.items():
            seen = [
                (event["t"], (topic, p), offset, *parse(value))
                for event in process.said("seen")
                for topic, p, offset, value in event["r"]
            ]
            readers[name] = Reader(isolation == "read_committed", seen)
        committed, inputs = ({p: both[at] for p, both in lag.items()} for at in (0, 1))
        return History(self.topics, self.transactions(), readers, inputs, committed, ends)

    def tell(self):
        """Writes down all that was said, for whoever has to find out what happened."""
        everyone = [*self.dead, *(process for _, process in self.readers.values())]
        story = [(event["t"], process.name, event) for process in everyone for event in process.events]
        lines = [f"{who} {json.dumps(what)}\n" for _, who, what in sorted(story, key=lambda line: line[:2])]
        lines += [f"{process.name}: exit code {process.process.returncode}\n{process.errors}\n" for process in everyone]
        (self.broker.directory / f"{self.name}.events").write_text("".join(lines))


def parse(text):
    """A value's transaction and input, as in loops.py."""
    name, partition, offset = text.split(" ")
    return name, (int(partition), int(offset))


def burnt(run, broker, proxy, loops, seconds):
    """Cuts and kills, for so long; gives what went wrong with the broker."""
    rng = random.Random(f"exactly once {run.seed}")
    burning = run.pool.submit(lambda: chaos.burn(broker, rng, seconds, pauses=(1.5, 5)))
    proxy.calm = False
    while not burning.done():
        for loop in loops:
            loop.tend(kills=True)
        time.sleep(0.2)
    proxy.calm = True
    return burning.result()


def fed(run, broker, burn, loops):
    """Feeds the loops while `burn` runs, then waits until all is read; gives what `burn` gave."""
    command = [run.installed / "venv/bin/python", HERE / "group_tools.py", "feed", broker.address, SOURCE]
    command = list(map(str, [*command, INPUTS, RECORDS_A_SECOND]))
    feed = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    problems = burn()
    _, errors = feed.communicate(timeout=90)
    run.checks.check("exactly once: every number sent", errors[-800:] if feed.returncode != 0 else None)
    least, since = None, time.monotonic()
    # As long as they get on: a long fire on a slow machine leaves much to read.
    while time.monotonic() - since < REST_SECONDS_MAX:
        for loop in loops:
            loop.tend(kills=False)
        left = sum(end - committed for loop in loops for committed, end in loop.lag().values())
        if left == 0:
            break
        if least is None or left < least:
            least, since = left, time.monotonic()
        time.sleep(0.5)
    return problems


def judged(run, loop):
    def check(what, problem):
        run.checks.check(f"exactly once, {loop.name}: {what}", problem)

    loop.rest()
    gave_up = [process for process in loop.dead if process.said("quit") or AIOKAFKA_GIVES_UP in process.errors]
    failures = [failure for failure in (process.failure() for process in loop.dead if process not in gave_up) if failure]
    check("no processor gave up", "\n".join(failures[:3]) + f"\n({len(failures)} in all)" if failures else None)
    confluent = [loop.command[0], HERE / "confluent_loop.py"]
    loop.watch("committed at last", "read_committed", confluent)
    loop.watch("uncommitted at last", "read_uncommitted", confluent)
    loop.watch("aiokafka at last", "read_committed", [loop.command[0], HERE / "aiokafka_loop.py"])
    deadline = time.monotonic() + REST_SECONDS_MAX
    while (behind := loop.behind(loop.ends())) and time.monotonic() < deadline:
        time.sleep(0.5)
    ends, lag = loop.ends(), loop.lag()
    check("readers are at the end", f"{behind}, the ends are {ends}" if behind else None)
    for _, reader in loop.readers.values():
        reader.leave()
    for _, reader in loop.readers.values():
        reader.end()
    loop.tell()
    history = loop.history(lag, ends)
    found = transaction_log.faults(history)
    check("exactly once", "\n".join(found[:8]) + f"\n({len(found)} in all)" if found else None)
    counts = {kind: 0 for kind in ("committed", "aborted", None)}
    for transaction in history.transactions.values():
        counts[transaction.result] += 1
    run.say(
        f"exactly once, {loop.name}: {sum(history.inputs.values())} inputs; {counts['committed']} committed,"
        f" {counts['aborted']} aborted, {counts[None]} of unknown fate;"
        f" {len(loop.dead)} processors, of which {len(gave_up)} gave up"
    )


def exactly_once(run):
    """The part of run.py."""
    transaction_log.judge_itself(lambda name, problem: run.checks.check(f"exactly once: {name}", problem))
    proxy = chaos.Proxy(random.Random(f"proxy {run.seed}").random())
    advertised = f"advertised.listeners=PLAINTEXT://{proxy.address}"
    broker = Broker(run.broker, run.scratch / "exactly_once", [*SETTINGS, advertised])
    proxy.target = broker.address
    groups.tool(run, broker, "create", SOURCE, INPUTS, "segment.bytes=200000")
    loops = [
        Loop(run, broker, "confluent", "confluent_loop.py", [[], [], []]),
        Loop(run, broker, "aiokafka", "aiokafka_loop.py", [[0, 1], [2, 3]]),
    ]
    loops = [loop for loop in loops if not run.case or loop.name in run.case]
    try:
        for loop in loops:
            for isolation in ("read_committed", "read_uncommitted"):
                loop.watch(isolation, isolation)
        seconds = run.seconds or SECONDS
        problems = fed(run, broker, lambda: burnt(run, broker, proxy, loops, seconds), loops)
        run.checks.check("exactly once: the broker stops cleanly", "; ".join(problems) or None)
        for loop in loops:
            judged(run, loop)
    finally:
        for loop in loops:
            for process in [*(seat.process for seat in loop.seats), *(reader for _, reader in loop.readers.values())]:
                if process and process.lives():
                    process.kill()
    run.say(f"exactly once: {broker.starts} brokers, {proxy.connections} connections")
    proxy.close()
    run.checks.check("exactly once: the broker stops cleanly at last", broker.stop() or None)
