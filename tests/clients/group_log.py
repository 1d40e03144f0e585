"""Judges what the members of one group said (see members.py): was every record consumed, and none again that Kafka
would not have consumed again?

A member's floor for a partition is what was committed, and acknowledged, when it learned that it owns it: it asks for
the committed offset only afterwards, so whatever it reads lies at the floor or above. That is Kafka's at-least-once:
a record comes again only if its consumer had not committed beyond it when it lost the partition.
"""


def faults(events, loose=(), seeded=()):
    """What is wrong, as texts. `events` are (member, event).

    Members in `loose` have clients that do what brokers cannot prevent: kafka-python and @platformatic/kafka may go on
    from a position that they had generations ago, and the latter repeats a refused commit in the next generation,
    though it may have lost the partition; or commits by the new generation already what it read in the last one, before
    it tells that it lost the partition. Their floor is lower by that; and as such a repeated commit may be under way with
    the new owner's, either of them may be the one that stands.

    Members in `seeded` (@platformatic/kafka) hold the beginning of every partition as its position until they have looked
    it up, and may fetch a new one from there: #fetch in messages-stream.js looks whether positions are being looked up,
    then waits for metadata, and then takes what is assigned by now. That is at 0 and in a partition never read before.
    """
    found, committed, commits, rightful, owners = [], {}, {}, {}, {}
    floor, position, held, lost = {}, {}, {}, {}
    repeated = [
        (event["sent"], event["t"], event["o"]) for member, event in events if event["e"] == "committed" and member in loose
    ]

    def stands(p, told):
        if not loose:
            return committed.get(p, 0)
        return standing(told[p]) if p in told else 0

    for member, event in sorted(events, key=lambda item: item[1]["t"]):
        kind, partitions = event["e"], event.get("p")
        if kind == "assigned":
            for p in partitions:
                owners.setdefault(p, []).append((event["t"], member))
                flying = [o[str(p)] for sent, t, o in repeated if sent <= event["t"] <= t and str(p) in o]
                old = [held[member, p]] if member in loose and (member, p) in held else []
                floor[member, p], position[member, p] = min([stands(p, commits), *flying, *old]), None
        elif kind == "revoked":
            for p in partitions:
                floor.pop((member, p), None)
                lost[member, p] = event["t"]
        elif kind == "read":
            p, (first, last) = partitions, event["o"]
            if (member, p) not in floor:
                found.append(f"{member} read {p} at {first}, which it did not own")
                continue
            expected = position[member, p]
            if first == 0 and member in seeded and (member, p) not in held:
                floor[member, p] = 0
            if first < floor[member, p]:
                found.append(f"{member} read {p} at {first}; {floor[member, p]} was committed before it owned it")
            elif expected is not None and first != expected and (first > expected or member not in loose):
                found.append(f"{member} read {p} at {first}, after {expected - 1}")
            position[member, p] = held[member, p] = last + 1
        elif kind == "committed":
            for p, offset in event["o"].items():
                p = int(p)
                before = [owner for since, owner in owners.get(p, ()) if since <= event["sent"]]
                knew = member not in loose or (member, p) not in floor and lost.get((member, p), 0) <= event["sent"]
                if before and before[-1] != member and knew:
                    found.append(f"{member} could commit {offset} to {p}, which was {before[-1]}'s by then")
                if offset < stands(p, rightful) and member not in loose:
                    found.append(f"{member} committed {offset} to {p} after {stands(p, rightful)}")
                committed[p] = max(offset, committed.get(p, 0))
                told = event["sent"], event["t"], offset
                commits.setdefault(p, []).append(told)
                # The new owner knows nothing of a repeated one, and begins below it.
                if member not in loose or p not in owners or owners[p][-1][1] == member:
                    rightful.setdefault(p, []).append(told)
    return found


def missing(events, ends):
    """Ranges that nobody read, as texts. `ends` is {partition: end offset}."""
    read = {p: bytearray(end) for p, end in ends.items()}
    for _, event in events:
        if event["e"] == "read":
            first, last = event["o"]
            read[event["p"]][first : last + 1] = b"\1" * (last + 1 - first)
    lost = {p: marks.count(0) for p, marks in read.items() if 0 in marks}
    return [f"partition {p}: {count} of {ends[p]} records, the first at {read[p].index(0)}" for p, count in lost.items()]


def standing(commits):
    """The least that may be committed after these (sent, acknowledged, offset): of those at once, any may be the last."""
    latest = max(sent for sent, _, _ in commits)
    return min(offset for _, acknowledged, offset in commits if acknowledged >= latest)


def kept(events):
    """{partition: what is committed at least} by what members were told."""
    commits = {}
    for _, event in events:
        if event["e"] == "committed":
            for p, offset in event["o"].items():
                commits.setdefault(int(p), []).append((event["sent"], event["t"], offset))
    return {p: standing(told) for p, told in commits.items()}


def owned(events):
    """The partitions that one member owns after its `events`."""
    partitions = set()
    for event in events:
        if event["e"] == "assigned":
            partitions |= set(event["p"])
        elif event["e"] == "revoked":
            partitions -= set(event["p"])
    return partitions


def judge_itself(check):
    """Each kind of fault is noticed, and a sound history has none. `check(name, problem)` takes the outcome."""

    def said(t, member, kind, **fields):
        return member, {"t": t, "e": kind, **fields}

    def sound():
        return [
            said(1, "a", "assigned", p=[0]),
            said(2, "a", "read", p=0, o=[0, 9]),
            said(3, "a", "committed", sent=2.5, o={"0": 10}),
            said(4, "a", "read", p=0, o=[10, 14]),
            said(5, "a", "revoked", p=[0]),
            said(6, "b", "assigned", p=[0]),
            said(7, "b", "read", p=0, o=[10, 19]),
            said(8, "b", "committed", sent=7.5, o={"0": 20}),
        ]

    check("a sound history has no fault", "; ".join(faults(sound()) + missing(sound(), {0: 20})) or None)
    wrong = {
        "a record after its commit": (6, said(7, "b", "read", p=0, o=[9, 19])),
        "a partition not owned": (5, said(6, "b", "assigned", p=[1])),
        "a skipped record": (3, said(4, "a", "read", p=0, o=[11, 14])),
        "a record twice": (3, said(4, "a", "read", p=0, o=[9, 14])),
        "a fenced member's commit": (7, said(8, "a", "committed", sent=7.5, o={"0": 20})),
        "a commit that goes back": (7, said(8, "b", "committed", sent=7.5, o={"0": 9})),
    }
    for name, (at, event) in wrong.items():
        history = sound()
        history[at] = event
        check(f"{name} is noticed", None if faults(history) else "it is not")

    def repeated(sent):
        """`a` repeats a commit when `b` owns the partition, which sends its own at `sent`."""
        return [
            *sound()[:3],
            said(4, "b", "assigned", p=[0]),
            said(5, "b", "read", p=0, o=[10, 19]),
            said(6, "a", "committed", sent=3.5, o={"0": 12}),
            said(7, "b", "committed", sent=sent, o={"0": 20}),
            said(8, "c", "assigned", p=[0]),
            said(9, "c", "read", p=0, o=[12, 19]),
        ]

    at_once, after = repeated(5.5), repeated(6.5)
    check("of commits at once either may stand", "; ".join(faults(at_once, {"a"})) or None)
    check("a commit stands against earlier ones", None if faults(after, {"a"}) else "it does not")
    below = [*at_once[:5], said(5.5, "a", "committed", sent=3.5, o={"0": 25}), said(7, "b", "committed", sent=6, o={"0": 20})]
    check("an owner may commit below a repeated commit", "; ".join(faults(below, {"a"})) or None)
    below += [said(8, "b", "committed", sent=7.5, o={"0": 19})]
    check("and not below its own", None if faults(below, {"a"}) else "it may")
    begun = [*sound()[:6], said(7, "b", "read", p=0, o=[0, 19]), said(8, "b", "committed", sent=7.5, o={"0": 20})]
    check("a seeded position may be read from", "; ".join(faults(begun, {"b"}, {"b"})) or None)
    begun[6] = said(7, "b", "read", p=0, o=[1, 19])
    check("any other may not", None if faults(begun, {"b"}, {"b"}) else "it may")
    told = [kept(history) for history in (sound(), at_once, after)]
    check("what is kept is told", None if told == [{0: 20}, {0: 12}, {0: 20}] else str(told))
    check("a lost record is noticed", None if missing(sound(), {0: 21}) else "it is not")
    check("what is owned is told", None if owned([e for m, e in sound() if m == "b"]) == {0} else "it is not")
