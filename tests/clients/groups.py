"""Consumer groups of real clients: members come, go and are killed while records arrive, and the broker with them.

Every case is one group on a topic of 24 partitions, judged by group_log.py.
"""

import json
import random
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import group_log
from broker import Broker
from process import END_SECONDS_MAX, Process

HERE = Path(__file__).resolve().parent
PARTITIONS, MEMBERS = 24, 8
RECORDS_A_SECOND = 400
CHURN_SECONDS = 18
SETTLE_SECONDS_MAX = 90
TOOL_SECONDS_MAX = 180
SETTINGS = [
    "group.initial.rebalance.delay.ms=100",
    "group.consumer.session.timeout.ms=6000",
    "group.consumer.min.session.timeout.ms=6000",
    "group.consumer.heartbeat.interval.ms=500",
    "group.consumer.min.heartbeat.interval.ms=500",
]
# librdkafka up to 2.15 at least: when a pause outdates its look-up of a first position, rd_kafka_toppar_handle_Offset
# starts a timer that nothing stops when the look-up after the resume has succeeded; the timed one sends the partition
# back to its beginning, whatever was read and committed meanwhile. So groups with these members begin with commits.
LIBRDKAFKA = ["confluent-kafka", "rdkafka"]
# See group_log.py.
LOOSE, SEEDED = ["kafka-python", "platformatic"], ["platformatic"]


def tool(run, broker, verb, *rest):
    """What group_tools.py answers."""
    command = [run.installed / "venv/bin/python", HERE / "group_tools.py", verb, broker.address, *rest]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
    if done.returncode != 0:
        raise RuntimeError(f"group_tools.py {verb}: {done.stderr[-1500:]}")
    return json.loads(done.stdout)


class Member(Process):
    """A client's driver as a member of a group."""

    def __init__(self, name, client, address, group, topic, options):
        self.client, self.options = client, options
        # Whether its giving up is wanted.
        self.doomed = False
        super().__init__(name, [*client.command, "member", address, group, topic, *(f"{k}={v}" for k, v in options.items())])

    def failure(self):
        if not self.doomed:
            return super().failure()
        said = [event["why"] for event in self.said("fatal")]
        return None if said and "nstance" in said[0] else f"{self.name} was not told that it is fenced: {said}"


class Group:
    """A group under test: its members, dead ones too, the feed of its topic, and its checks."""

    def __init__(self, run, broker, name, clients):
        self.run, self.broker, self.name = run, broker, name
        self.members, self.feed = [], None
        # What a client may give up with, where the broker is away for longer than it tries.
        self.tolerated = ()
        self.random = random.Random(f"{name} {run.seed}")
        self.tool("create", PARTITIONS)
        if any(client.name in LIBRDKAFKA for client in clients):
            self.tool("begin", name, PARTITIONS)

    def __enter__(self):
        command = [self.run.installed / "venv/bin/python", HERE / "group_tools.py", "feed", self.broker.address]
        command = [*map(str, command), self.name, str(PARTITIONS), str(RECORDS_A_SECOND)]
        self.feed = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        for process in [self.feed, *(member.process for member in self.members)]:
            if process.poll() is None:
                process.kill()

    def tool(self, verb, *rest):
        """What group_tools.py answers to a verb about this group, or the topic of its name."""
        return tool(self.run, self.broker, verb, self.name, *rest)

    def check(self, what, problem):
        self.run.checks.check(f"group {self.name}: {what}", problem)

    def start(self, client, **options):
        name = f"{client.name} {len(self.members)}"
        self.members.append(Member(name, client, self.broker.address, self.name, self.name, options))
        return self.members[-1]

    def living(self):
        return [member for member in self.members if member.lives() and not member.wanted]

    def events(self):
        return [(member.name, event) for member in self.members for event in list(member.events)]

    def even(self):
        """None if the living own every partition once, and share them evenly, by what they say themselves."""
        shares = {member.name: sorted(group_log.owned(list(member.events))) for member in self.living()}
        every = sorted(partition for share in shares.values() for partition in share)
        sizes = {len(share) for share in shares.values()}
        fair = {PARTITIONS // max(len(shares), 1), -(-PARTITIONS // max(len(shares), 1))}
        return None if every == list(range(PARTITIONS)) and sizes <= fair else f"they own {shares}"

    def settle(self, what, seconds=SETTLE_SECONDS_MAX):
        """Waits until the partitions are shared out and nothing moves for a second; that is a check."""
        deadline, calm = time.monotonic() + seconds, 0
        while calm < 5 and time.monotonic() < deadline:
            calm = calm + 1 if self.even() is None else 0
            time.sleep(0.2)
        self.check(f"{what}: every partition has one owner", self.even())

    def consumed(self):
        """Stops the feed; waits until the admin side tells no lag; checks what was read. Gives {partition: end}."""
        _, errors = self.feed.communicate(timeout=TOOL_SECONDS_MAX)
        self.check("all records sent", errors[-800:] if self.feed.returncode != 0 else None)
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        behind = lags = None
        while behind is None or (behind and time.monotonic() < deadline):
            lags = self.tool("lag", self.name)
            behind = {p: lag for p, lag in lags.items() if lag[0] != lag[1]}
        self.check("final lag 0", f"[committed, end] by partition: {behind}" if behind else None)
        ends = {int(p): lag[1] for p, lag in lags.items()}
        self.check("every record consumed", "; ".join(group_log.missing(self.events(), ends)[:5]) or None)
        return ends

    def described(self, state="STABLE", kind=None, members=None):
        """Checks that the broker describes the group as its members do; for a while it may still be rebalancing."""
        deadline = time.monotonic() + END_SECONDS_MAX
        while True:
            found = self.tool("group")
            told = sorted(member["p"] for member in found["members"])
            said = sorted(sorted(group_log.owned(list(member.events))) for member in self.living())
            wanted = (state, kind or found["type"], members or len(said), said)
            seen = (found["state"], found["type"], len(told), told)
            if seen == wanted or time.monotonic() > deadline:
                return self.check("described as it is", None if seen == wanted else f"{seen}, not {wanted}")
            time.sleep(0.5)

    def finish(self):
        """Lets the members leave, and judges all that was said."""
        for member in self.living():
            member.leave()
        for member in self.members:
            member.end()
        # For whoever has to find out what happened.
        story = [f"{who} {json.dumps(what)}\n" for who, what in sorted(self.events(), key=lambda item: item[1]["t"])]
        story += [f"{member.name}: exit code {member.process.returncode}\n{member.errors}\n" for member in self.members]
        (self.broker.directory / f"{self.name}.events").write_text("".join(story))
        failures = [failure for failure in (member.failure() for member in self.members) if failure]
        failures = [failure for failure in failures if not any(text in failure for text in self.tolerated)]
        self.check("no member gave up", "\n".join(failures[:3]) + f"\n({len(failures)} in all)" if failures else None)
        loose, seeded = [
            {member.name for member in self.members if member.client.name in names} for names in (LOOSE, SEEDED)
        ]
        faults = group_log.faults(self.events(), loose, seeded)
        self.check("nothing consumed again", "; ".join(faults[:5]) + f" ({len(faults)} in all)" if faults else None)
        # Static members are members until their session ends.
        deadline = time.monotonic() + END_SECONDS_MAX
        while (found := self.tool("group"))["members"] and time.monotonic() < deadline:
            time.sleep(0.5)
        self.check("empty at the end", None if (found["state"], found["members"]) == ("EMPTY", []) else str(found))

    def churn(self, kinds, seconds=CHURN_SECONDS):
        """Kills members, lets others leave, starts new ones; `kinds` gives what to start, as (client, options)."""
        leaving = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(self.random.uniform(0.3, 1.5))
            living = self.living()
            if len(living) < MEMBERS and self.random.random() < len(living) / MEMBERS:
                self.start_one(kinds)
            elif len(living) > MEMBERS // 2:
                victim = self.random.choice(living)
                if self.random.random() < 0.5:
                    victim.kill()
                else:
                    victim.leave()
                    leaving.append(victim)
        for member in leaving:
            member.end()
        while len(self.living()) < MEMBERS:
            self.start_one(kinds)

    def start_one(self, kinds):
        """Starts a member of the kind that has fewest."""
        count = {client.name: 0 for client, _ in kinds}
        for member in self.living():
            count[member.client.name] += 1
        client, options = min(kinds, key=lambda kind: count[kind[0].name])
        return self.start(client, **options)


def churned(run, broker, name, kinds):
    """8 members that come and go."""
    with Group(run, broker, name, [client for client, _ in kinds]) as group:
        for _ in range(MEMBERS):
            group.start_one(kinds)
        group.churn(kinds)
        group.settle("after the churn")
        group.described()
        group.consumed()
        group.finish()


def migrated(run, broker, name, client):
    """A living group goes from the classic protocol to the new one and back, member by member."""
    kinds = {
        "CLASSIC": {"protocol": "classic", "assignor": "range"},
        "CONSUMER": {"protocol": "consumer", "assignor": "range"},
    }
    with Group(run, broker, name, [client]) as group:
        for _ in range(4):
            group.start(client, **kinds["CLASSIC"])
        group.settle("classic")
        group.described(kind="CLASSIC")
        for kind in ["CONSUMER", "CLASSIC"]:
            old = group.living()
            for member in old:
                group.start(client, **kinds[kind])
                time.sleep(0.7)
                member.leave()
                member.end()
            group.settle(f"to {kind.lower()}")
            group.described(kind=kind)
        group.consumed()
        group.finish()


def static(run, broker, name, client, protocol):
    """Static members: one that comes back keeps its partitions and nobody else notices; a second one of its name is fenced."""
    options = {"protocol": protocol, "assignor": "range"}
    with Group(run, broker, name, [client]) as group:
        members = [group.start(client, instance=f"instance-{number}", **options) for number in range(3)]
        group.settle("static")
        gone = members.pop()
        share = group_log.owned(list(gone.events))
        moves = [len(moved(member)) for member in members]
        if protocol == "classic":
            gone.kill()
        else:
            # The new protocol lets a name be taken over only when its member has said that it goes.
            gone.leave()
            gone.end()
        back = group.start(client, instance="instance-2", **options)
        group.settle("the third is back")
        same = group_log.owned(list(back.events)) == share
        group.check("it has its partitions again", None if same else f"{group_log.owned(back.events)}, not {share}")
        time.sleep(2)
        after = [len(moved(member)) for member in members]
        group.check("nobody else noticed", None if after == moves else f"moves of the others: {after}, before {moves}")
        group.described(members=3)
        twin = group.start(client, instance="instance-2", **options)
        # In the classic protocol the newcomer wins, in the new one the member that is there.
        loser = back if protocol == "classic" else twin
        loser.doomed = True
        deadline = time.monotonic() + END_SECONDS_MAX
        while loser.lives() and time.monotonic() < deadline:
            time.sleep(0.1)
        group.check("a second of that name is fenced", f"{loser.name} lives on" if loser.lives() else None)
        loser.kill()
        group.settle("after the fencing")
        group.consumed()
        group.finish()


def moved(member):
    return [event for event in list(member.events) if event["e"] in ("assigned", "revoked")]


def restarted(run, broker, groups):
    """`groups` is [(name, kinds)]. The broker is stopped, then killed in mid-rebalance, thrice; nobody helps the members."""
    with ExitStack() as stack:
        groups = [
            (stack.enter_context(Group(run, broker, name, [client for client, _ in kinds])), kinds)
            for name, kinds in groups
        ]
        for group, kinds in groups:
            for _ in range(MEMBERS):
                group.start_one(kinds)
        for group, _ in groups:
            group.settle("at first")
        for turn in range(4):
            if turn > 0:
                for group, kinds in groups:
                    group.random.choice(group.living()).kill()
                    group.start_one(kinds)
                time.sleep(groups[0][0].random.uniform(0.2, 1.2))
            kept = [group_log.kept(group.events()) for group, _ in groups]
            (broker.kill if turn > 0 else broker.stop)()
            time.sleep(0.5)
            broker.start()
            for (group, _), offsets in zip(groups, kept):
                now = {int(p): lag[0] for p, lag in group.tool("lag", group.name).items()}
                lost = {p: (offset, now[p]) for p, offset in offsets.items() if now[p] < offset}
                group.check(f"restart {turn}: committed offsets are kept", f"(before, after): {lost}" if lost else None)
            for group, _ in groups:
                group.settle(f"restart {turn}")
        for group, _ in groups:
            group.described()
            group.consumed()
            group.finish()


def groups(run):
    """The part of run.py: cases two at a time on one broker, then the restarts on a broker of their own."""
    group_log.judge_itself(lambda name, problem: run.checks.check(f"groups: {name}", problem))
    client = {client.name: client for client in run.clients}
    broker = Broker(run.broker, run.scratch / "groups", settings=SETTINGS)
    cases = []

    def churn(name, kinds):
        kinds = [(client[kind], options) for kind, options in kinds if kind in client]
        if kinds:
            cases.append((name, lambda: churned(run, broker, name, kinds)))

    own = "RoundRobinAssigner"
    assignors = [("confluent-kafka", "range"), ("kafka-python", "range"), ("aiokafka", "roundrobin")]
    for kind, assignor in [*assignors, ("kafkajs", own), ("platformatic", "roundrobin"), ("rdkafka", "roundrobin")]:
        churn(f"{kind}.classic", [(kind, {"protocol": "classic", "assignor": assignor})])
    for kind, assignor in [("confluent-kafka", "uniform"), ("rdkafka", "range"), ("platformatic", "uniform")]:
        churn(f"{kind}.consumer", [(kind, {"protocol": "consumer", "assignor": assignor})])
    for kind in ["confluent-kafka", "kafka-python", "rdkafka"]:
        churn(f"{kind}.cooperative", [(kind, {"protocol": "classic", "assignor": "cooperative-sticky"})])
    mixed = {"protocol": "classic", "assignor": "roundrobin"}
    churn("mixed", [(kind, mixed) for kind in client if kind != "kcat"])
    if "confluent-kafka" in client:
        confluent = client["confluent-kafka"]
        cases.append(("migrated", lambda: migrated(run, broker, "migrated", confluent)))
        for protocol in ["classic", "consumer"]:
            name = f"static.{protocol}"
            cases.append((name, lambda n=name, p=protocol: static(run, broker, n, confluent, p)))
    cases = [case for case in cases if not run.case or case[0] in run.case]
    outcomes = run.jobs(cases)
    for name, outcome in outcomes.items():
        run.checks.check(f"group {name}", outcome)
    run.checks.check("groups: the broker stops cleanly", broker.stop() or None)

    if run.case and "restarted" not in run.case:
        return
    broker = Broker(run.broker, run.scratch / "groups-restarted", settings=SETTINGS)
    new = {"protocol": "consumer", "assignor": "uniform"}
    restarts = [
        ("restarted.mixed", [(client[kind], mixed) for kind in client if kind != "kcat"]),
        ("restarted.consumer", [(client[kind], new) for kind in ["confluent-kafka", "rdkafka"] if kind in client]),
    ]
    restarted(run, broker, [(name, kinds) for name, kinds in restarts if kinds])
    run.checks.check("groups: the broker stops cleanly after its restarts", broker.stop() or None)
