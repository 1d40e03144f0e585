"""Judges a read-process-write loop, in the manner of Jepsen, by what all who took part said.

The loop reads numbered inputs from a topic, and for each writes one record to each of two topics, in transactions that
also commit what was read. What must hold of exactly once:

- each input is in each of the two topics once, and in order, by read_committed
- a transaction whose commit was acknowledged is there; one that was aborted, or never asked to commit, is not
- all of a transaction is there, or nothing
- no reader is shown by read_committed what was not yet asked to be committed
- what a reader was shown once is there for every later reader at the same place, and nothing is shown to one only
- what the group has committed is what was read by the transactions that are there, and it never goes back
- at rest the last stable offset is the end
"""

from dataclasses import dataclass, field


@dataclass
class Transaction:
    """`inputs` are (partition, offset); `asked` is when its commit was asked for, None for never."""

    inputs: list
    asked: float = None
    # What the client was told: "committed" or "aborted", and when; None if nobody knows.
    result: str = None
    told: float = None


@dataclass
class Reader:
    """What a reader saw, in its order: (time, (topic, partition), offset, transaction's name, input)."""

    committed: bool
    seen: list


@dataclass
class History:
    """`readers` have read to the end; the first one of them is of read_committed."""

    topics: list
    transactions: dict
    readers: dict
    # {partition: end} of the inputs, and what the group has committed.
    inputs: dict
    offsets: dict
    # {(topic, partition): (last stable offset, end)}
    ends: dict = field(default_factory=dict)


def faults(history):
    """What is wrong, as texts."""
    first = next(iter(history.readers.values()))
    return [
        *once(history, first),
        *whole(history, first),
        *shown(history, first),
        *offsets(history),
    ]


def once(history, first):
    """Each input once in each topic, in the order of its partition."""
    found, places, last = [], {}, {}
    for _, place, offset, name, source in first.seen:
        if (place[0], source) in places:
            found.append(f"input {source} twice: {places[place[0], source]} and {place, offset, name}")
        places[place[0], source] = place, offset, name
        if source[1] <= last.get((place, source[0]), -1):
            found.append(f"input {source} at {place, offset} follows {last[place, source[0]]}")
        last[place, source[0]] = source[1]
    for topic in history.topics:
        lost = [(p, o) for p, end in history.inputs.items() for o in range(end) if (topic, (p, o)) not in places]
        if lost:
            found.append(f"{len(lost)} inputs are not in {topic}, such as {lost[:3]}")
    return found


def whole(history, first):
    """Transactions that are there are there as a whole, and those that are not should not be."""
    found, there = [], {}
    for _, (topic, _), _, name, source in first.seen:
        there.setdefault(name, set()).add((topic, source))
    for name, outputs in there.items():
        transaction = history.transactions.get(name)
        if transaction is None or transaction.asked is None or transaction.result == "aborted":
            found.append(f"{name} was not committed ({transaction}), and {len(outputs)} records of it are there")
        elif outputs != {(topic, source) for topic in history.topics for source in transaction.inputs}:
            found.append(f"{name} is torn: {sorted(outputs)[:6]} of {transaction}")
    for name, transaction in history.transactions.items():
        if transaction.result == "committed" and name not in there:
            found.append(f"{name} was committed and is lost: {transaction}")
    return found


def shown(history, first):
    """Every reader saw the same, at the same places, in order, and not too early."""
    found, uncommitted = [], None
    committed = {(place, offset): (name, source) for _, place, offset, name, source in first.seen}
    for who, reader in history.readers.items():
        last, seen = {}, {}
        for when, place, offset, name, source in reader.seen:
            if offset <= last.get(place, -1):
                found.append(f"{who} saw {place} {offset} after {last[place]}")
            last[place], seen[place, offset] = offset, (name, source)
            transaction = history.transactions.get(name)
            if reader.committed and transaction and (transaction.asked is None or when < transaction.asked):
                found.append(f"{who} saw {name} at {when}, and its commit was asked for at {transaction.asked}")
        if reader.committed:
            found += differences(who, seen, committed)
        else:
            uncommitted = uncommitted or seen
            found += differences(who, seen, uncommitted)
            hidden = {at: what for at, what in committed.items() if seen.get(at) != what}
            if hidden:
                found.append(f"{who} did not see {len(hidden)} committed records, such as {next(iter(hidden.items()))}")
    return found


def differences(who, seen, all_there_is):
    odd = sorted(set(seen.items()) - set(all_there_is.items()))
    missed = sorted(set(all_there_is.items()) - set(seen.items()))
    texts = [(odd, "that is not there"), (missed, "too few")]
    return [f"{who} saw {len(what)} records {text}, such as {what[:2]}" for what, text in texts if what]


def offsets(history):
    """The group's offsets are those of its transactions, never go back, and nothing is open any more."""
    found, last = [], {}
    done = [(t.told, name, t) for name, t in history.transactions.items() if t.result == "committed"]
    for _, name, transaction in sorted(done, key=lambda one: one[0]):
        for partition, offset in transaction.inputs:
            if offset <= last.get(partition, -1):
                found.append(f"{name} committed input {partition, offset} after {last[partition]}")
            last[partition] = offset
    for partition, end in history.inputs.items():
        if history.offsets.get(partition, 0) != end:
            found.append(f"committed of input {partition}: {history.offsets.get(partition)}, which ends at {end}")
    for place, (stable, end) in history.ends.items():
        if stable != end:
            found.append(f"{place}: the last stable offset is {stable}, the end {end}")
    return found


def judge_itself(check):
    """Each kind of fault is noticed, and a sound history has none. `check(name, problem)` takes the outcome."""
    a, b = ("a", 0), ("b", 0)

    def sound():
        outputs = [(3, 0, "x", 0), (3, 1, "x", 1), (7, 6, "z", 2)]
        seen = [(t, place, offset, name, (0, i)) for t, offset, name, i in outputs for place in (a, b)]
        dirty = [(4.5, place, 3, "y", (0, 2)) for place in (a, b)]
        return History(
            topics=["a", "b"],
            transactions={
                "x": Transaction([(0, 0), (0, 1)], 2, "committed", 4),
                "y": Transaction([(0, 2)], None, "aborted", 5),
                "z": Transaction([(0, 2)], 6),
            },
            readers={
                "first": Reader(True, list(seen)),
                "second": Reader(True, list(seen)),
                "dirty": Reader(False, seen[:4] + dirty + seen[4:]),
                "dirty too": Reader(False, seen[:4] + dirty + seen[4:]),
            },
            inputs={0: 3},
            offsets={0: 3},
            ends={a: (8, 8), b: (8, 8)},
        )

    def everywhere(history, change):
        for reader in history.readers.values():
            reader.seen = change(reader.seen)

    def without(name, place=None):
        return lambda h: everywhere(h, lambda seen: [s for s in seen if s[3] != name or place not in (None, s[1])])

    def one_reader(who, change):
        def damage(history):
            history.readers[who].seen = change(history.readers[who].seen)

        return damage

    def swapped(seen):
        order = [seen[2], *seen[1:2], seen[0], *seen[3:]]
        return [(*now[:2], then[2], *now[3:]) for now, then in zip(order, seen)]

    def added(*records):
        return lambda history: everywhere(history, lambda seen: [*seen, *records])

    def misses(history):
        for who in ("dirty", "dirty too"):
            one_reader(who, lambda seen: seen[:-1])(history)

    late = Transaction([(0, 0)], 1, "committed", 9)
    wrong = {
        "a lost write": ("was committed and is lost", without("x")),
        "a lost write of unknown fate": ("inputs are not in", without("z")),
        "a torn transaction": ("is torn", without("x", b)),
        "an aborted read": ("was not committed", added((8, a, 7, "y", (0, 3)), (8, b, 7, "y", (0, 3)))),
        "a read of what nobody committed": ("was not committed", lambda h: setattr(h.transactions["z"], "asked", None)),
        "a read of nobody's record": ("was not committed", lambda h: h.transactions.pop("z")),
        "an input twice": ("twice", added((8, a, 7, "z", (0, 2)))),
        "inputs out of order": ("follows", lambda h: everywhere(h, swapped)),
        "an early read": ("its commit was asked for", one_reader("second", lambda s: [(1, *s[0][1:]), *s[1:]])),
        "a read that disappears": ("that is not there", one_reader("second", lambda s: [*s, (8, a, 7, "z", (0, 2))])),
        "a record overlooked": ("too few", one_reader("second", lambda s: s[:-1])),
        "an offset twice": ("saw ('b', 0) 6 after 6", one_reader("second", lambda s: [*s, s[-1]])),
        "another record at a place": ("that is not there", one_reader("second", lambda s: [(*s[0][:4], (0, 9)), *s[1:]])),
        "uncommitted that disappears": ("too few", one_reader("dirty", lambda s: [*s, (8, a, 7, "w", (0, 2))])),
        "committed that read_uncommitted misses": ("did not see", misses),
        "an offset that goes back": ("committed input (0, 0) after 1", lambda h: h.transactions.update(w=late)),
        "a lost offset": ("committed of input 0: 2", lambda h: h.offsets.update({0: 2})),
        "an offset without outputs": ("inputs are not in", lambda h: (h.inputs.update({0: 4}), h.offsets.update({0: 4}))),
        "a last stable offset that hangs": ("the last stable offset is 6", lambda h: h.ends.update({a: (6, 8)})),
    }
    check("a sound history has no fault", "; ".join(faults(sound())) or None)
    for name, (fault, damage) in wrong.items():
        history = sound()
        damage(history)
        found = faults(history)
        check(f"{name} is noticed", None if any(fault in text for text in found) else f"it is not: {found}")
