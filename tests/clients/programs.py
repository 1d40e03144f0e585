"""Programs that people run on Kafka, unmodified: each moves real messages, or tells topics, groups and lag.

Apps and settings of theirs are in programs/. All read the topic `lines`, in a group of their own if they have groups.
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from broker import Broker

HERE = Path(__file__).resolve().parent / "programs"
COUNT, PARTITIONS = 400, 4
MOVE_SECONDS_MAX, STOP_SECONDS_MAX = 120, 60
LINES = [f"line {number} of many" for number in range(COUNT)]
OFFSET = "kafka_consumer_group_offset{"
# Words that no program says when all is well.
COMPLAINT = re.compile(r"\b(ERROR|CRITICAL|FATAL|FAIL|Traceback|Exception|panic|error:|failed)\b")


class Program:
    """A program that runs until it is stopped; all that it says goes to a file."""

    def __init__(self, run, name, command, env=None):
        self.log = run.scratch / f"programs-{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self):
        return self.log.read_text(errors="replace")

    def stop(self, patient=False):
        """SIGTERM; raises unless it ends by itself and, if it is not to be forgiven, never complained."""
        self.process.send_signal(signal.SIGTERM)
        self.end(STOP_SECONDS_MAX, patient)

    def end(self, seconds, patient=False):
        """Waits for its end; raises if it takes too long, or if the program complained."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"still there after {seconds} s: {self.said()[-1500:]}") from None
        complaint = None if patient else COMPLAINT.search(self.said())
        if complaint or self.process.returncode not in (0, 1 if patient else 0, -signal.SIGTERM, 128 + signal.SIGTERM):
            at = max(complaint.start() - 200, 0) if complaint else -1500
            raise RuntimeError(f"exit code {self.process.returncode}, it said: {self.said()[at:][:1500]}")


class Scene:
    """The broker, the lines on it, and how the cases look at what the programs did."""

    def __init__(self, run):
        self.run = run
        settings = [f"num.partitions={PARTITIONS}", "group.initial.rebalance.delay.ms=0"]
        self.broker = Broker(run.broker, run.scratch / "programs", settings=settings)
        self.client = next(client for client in run.clients if client.name == "rdkafka")
        self.python = run.installed / "programs/bin/python"
        self.send("lines", LINES)

    def send(self, topic, lines):
        records = [(b"%d" % (number % 7), line.encode(), [], None) for number, line in enumerate(lines)]
        self.client.produce(self.broker, topic, "none", records)

    def read(self, topic):
        """[(partition, value)]"""
        return [(p, value.decode()) for p, _, (_, value, _, _) in self.client.consume(self.broker, [topic])[topic]]

    def wait(self, program, topic, wanted):
        """Waits until the values of `topic` are `wanted`, in any order."""
        deadline = time.monotonic() + MOVE_SECONDS_MAX
        while (found := sorted(value for _, value in self.read(topic))) != sorted(wanted):
            if time.monotonic() > deadline or program.process.poll() is not None:
                extra = sorted(set(found) - set(wanted))[:3]
                told = f"{len(found)} of {len(wanted)} in {topic}, unexpected {extra}"
                raise RuntimeError(f"{told}; it said: {program.said()[-1500:]}")
            time.sleep(0.5)

    def app(self, name, script, *args):
        return Program(self.run, name, [self.python, HERE / script, *args])

    def directory(self, name):
        directory = self.run.scratch / f"programs-{name}"
        subprocess.run(["rm", "-rf", directory], check=True)
        directory.mkdir()
        return directory

    def debian(self, name, conf, **replaced):
        """(its directory with in.log and its configuration, the extracted packages' root, environment)"""
        root = self.run.installed / "debian"
        directory = self.directory(name)
        text = (HERE / conf).read_text()
        for key, value in {"directory": directory, "bootstrap": self.broker.address, **replaced}.items():
            text = text.replace(f"@{key}@", str(value))
        (directory / conf).write_text(text)
        (directory / "in.log").write_text("".join(line + "\n" for line in LINES))
        libraries = sorted({str(path.parent) for path in root.glob("**/*.so*")})
        return directory, root, {"LD_LIBRARY_PATH": ":".join(libraries)}


def rsyslog(scene):
    directory, root, env = scene.debian("rsyslog", "rsyslog.conf")
    (modules,) = {path.parent for path in root.glob("usr/lib/**/omkafka.so")}
    command = [root / "usr/sbin/rsyslogd", "-n", "-f", directory / "rsyslog.conf", "-i", directory / "pid", "-M", modules]
    with Program(scene.run, "rsyslog", command, env) as program:
        scene.wait(program, "rsyslog-out", LINES)
        # And a group of one, the other way.
        back, wanted = directory / "back.log", sorted(LINES)
        deadline = time.monotonic() + MOVE_SECONDS_MAX
        while (found := sorted(back.read_text().splitlines()) if back.exists() else []) != wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"imkafka: {len(found)} lines of {COUNT}; it said: {program.said()[-1500:]}")
            time.sleep(0.2)
        program.stop()


def syslog_ng(scene):
    root = scene.run.installed / "debian"
    (modules,) = {path.parent for path in root.glob("usr/lib/**/libkafka.so")}
    directory, root, env = scene.debian("syslog-ng", "syslog-ng.conf", version=modules.name)
    state = ["--persist-file", directory / "persist", "--pidfile", directory / "pid", "--control", directory / "control"]
    command = [root / "usr/sbin/syslog-ng", "-F", "--no-caps", "-f", directory / "syslog-ng.conf", *state]
    with Program(scene.run, "syslog-ng", [*command, "--module-path", modules], env) as program:
        scene.wait(program, "syslog-ng-out", LINES)
        program.stop()


def faust(scene):
    directory = scene.directory("faust")

    def counted():
        """What comes out: each line with its partition, and its number in it."""
        numbers = {}
        for partition, line in scene.read("faust-in"):
            numbers[partition] = numbers.get(partition, 0) + 1
            yield f"{partition} {numbers[partition]} {line}"

    # A restarted worker must know how far it had counted. What waits for it already it may lose while it restores its
    # table: it has the records twice then, and drops some.
    for turn in ["started", "restarted"]:
        with scene.app(f"faust-{turn}", "faust_app.py", scene.broker.address, directory, "worker", "-l", "info") as program:
            deadline = time.monotonic() + MOVE_SECONDS_MAX
            while "Worker ready" not in program.said() and time.monotonic() < deadline:
                time.sleep(0.1)
            scene.send("faust-in", [f"{turn}: {line}" for line in LINES])
            scene.wait(program, "faust-out", list(counted()))
            program.stop()


def faststream(kind):
    def case(scene):
        with scene.app(f"faststream-{kind}", "faststream_app.py", scene.broker.address, kind) as program:
            scene.wait(program, f"faststream-{kind}-out", [line.upper() for _, line in scene.read("lines")])
            program.stop()

    return case


def quix(scene):
    directory = scene.directory("quix")
    lines = scene.read("lines")
    with scene.app("quix", "quix_app.py", scene.broker.address, directory, len(lines)) as program:
        program.end(MOVE_SECONDS_MAX)
    found = sorted(value.split(" ", 1)[1] for _, value in scene.read("quix-out"))
    if found != sorted(line for _, line in lines):
        raise RuntimeError(f"{len(found)} lines of {len(lines)}")


def bytewax(scene):
    lines = [line.upper() for _, line in scene.read("lines")]
    with scene.app("bytewax", "bytewax_app.py", scene.broker.address) as program:
        program.end(MOVE_SECONDS_MAX)
    found = [value for _, value in scene.read("bytewax-out")]
    if sorted(found) != sorted(lines):
        raise RuntimeError(f"{len(found)} lines of {len(lines)}")


def kafkatop(scene):
    """A console that shows groups and their lag."""

    def shown(*args):
        command = [scene.run.installed / "programs/bin/kafkatop", "--kafka-broker", scene.broker.address, "--text", *args]
        with Program(scene.run, "kafkatop", command) as program:
            program.end(MOVE_SECONDS_MAX)
            return program.said()

    summary = shown("--all", "--summary-json")
    for group in ["faust", "faststream-kafka", "faststream-confluent", "rsyslog"]:
        if group not in summary:
            raise RuntimeError(f"no group {group} in {summary[-1500:]}")
    topics = shown("--topicinfo")
    if "lines" not in topics:
        raise RuntimeError(f"no topic lines in {topics[-1500:]}")


def console(scene):
    """kafka-python's command line."""

    def shown(*args):
        python = scene.run.installed / "venv/bin/python"
        command = [python, "-m", "kafka.admin", "--bootstrap-servers", scene.broker.address, "--format", "json", *args]
        with Program(scene.run, "console", command) as program:
            program.end(MOVE_SECONDS_MAX)
            return json.loads(program.said())

    if "lines" not in shown("topics", "list"):
        raise RuntimeError("no topic lines")
    groups = {group["group_id"] for group in shown("groups", "list")}
    if not {"faust", "rsyslog"} <= groups:
        raise RuntimeError(f"groups are {groups}")


def exporter(scene):
    """Reads __consumer_offsets itself, and serves each group's offsets.

    For the lag it asks ListOffsets version 0, which Kafka 4 serves no more: it says so, and is forgiven.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = scene.run.installed / "exporter/bin/prometheus-kafka-consumer-group-exporter"
    intervals = ["--topic-interval", "1", "--high-water-interval", "1", "--low-water-interval", "1"]
    command = [script, "-b", scene.broker.address, "-p", port, "--from-start", *intervals]
    ends = {}
    for partition, _ in scene.read("lines"):
        ends[str(partition)] = ends.get(str(partition), 0) + 1
    with Program(scene.run, "exporter", command) as program:
        deadline = time.monotonic() + MOVE_SECONDS_MAX
        while (found := exported(port, "faststream-kafka", "lines")) != ends:
            if time.monotonic() > deadline or program.process.poll() is not None:
                raise RuntimeError(f"offsets {found}, not {ends}; it said: {program.said()[-1500:]}")
            time.sleep(0.5)
        program.stop(patient=True)


def exported(port, group, topic):
    """{partition: committed offset} as the exporter serves it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    except OSError:
        return {}
    finally:
        connection.close()
    rows = [
        dict(re.findall(r'(\w+)="([^"]*)"', row), value=row.split()[-1])
        for row in page.splitlines()
        if row.startswith(OFFSET)
    ]
    return {row["partition"]: float(row["value"]) for row in rows if (row["group"], row["topic"]) == (group, topic)}


MOVERS = {
    "rsyslog": rsyslog,
    "syslog-ng": syslog_ng,
    "faust": faust,
    "faststream kafka": faststream("kafka"),
    "faststream confluent": faststream("confluent"),
    "quix": quix,
    "bytewax": bytewax,
}
# These look at what the others did.
WATCHERS = {"kafkatop": kafkatop, "console": console, "exporter": exporter}


def programs(run):
    """The part of run.py: those that move messages two at a time, then those that look on."""
    scene = Scene(run)
    for cases in [MOVERS, WATCHERS]:
        chosen = {name: case for name, case in cases.items() if not run.case or name in run.case}
        if not (run.installed / "debian").exists():
            for name in ["rsyslog", "syslog-ng"]:
                if chosen.pop(name, None):
                    run.checks.skip(name, "not installed: apt could not be used")
        outcomes = run.jobs([(name, lambda c=case: c(scene)) for name, case in chosen.items()])
        for name, outcome in outcomes.items():
            run.checks.check(f"program {name}", outcome and str(outcome))
    run.checks.check("programs: the broker stops cleanly", scene.broker.stop() or None)
