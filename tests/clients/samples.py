"""What is sent in the client tests: awkward records for every corner of a record, and a real text for bulk."""

import random
import re

COUNT = 300
HEADER_SETS = [
    [],
    [("one", b"1")],
    [("twice", b"first"), ("twice", b"second"), ("twice", b"first")],
    [("empty", b""), ("null", None), ("", b"no name")],
    [("\u043a\u043b\u044e\u0447", "\u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \U0001f40e".encode())],
    [("bytes", bytes(range(256)).replace(b",", b""))] + [(f"n{i}", b"x" * i) for i in range(20)],
]
SIZES = [1, 2, 3, 10, 64, 100, 500, 1000, 5000]
HUGE = 100_000


def part(rng, size):
    """A key or value of `size` bytes: random, repetitive, zeros, or text with multi-byte characters."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(size)
    pattern = [b"\0", b"the same again and ", "z\u00e1\u0159\u00ed \u65e5\u672c\u8a9e \U0001f980 ".encode()][kind - 1]
    return (pattern * (size // len(pattern) + 1))[:size]


def awkward(seed):
    """Records as (key, value, headers, timestamp): null, empty and binary keys and values from 1 byte to 100 KB.

    Header sets come in blocks, nulls in the first half of each block and empties in the second, because kcat has
    these per run and not per message.
    """
    rng = random.Random(seed)
    block = COUNT // len(HEADER_SETS)
    records = []
    for i in range(COUNT):
        nothing = None if i % block < block // 2 else b""
        key = nothing if i % 5 == 1 else part(rng, rng.choice(SIZES[:6]))
        value = nothing if i % 7 == 2 and i % 5 != 1 else part(rng, HUGE if i % 100 == 50 else rng.choice(SIZES))
        # From 2001 to 2023, neither rising nor falling.
        timestamp = rng.randrange(1_000_000_000_000, 1_700_000_000_000)
        records.append((key, value, HEADER_SETS[i // block], timestamp))
    return records


def corpus(directory, bytes_wanted=3_000_000):
    """The sentences of the newest speeches as records, keyed by their number, which also shows their order."""
    texts, size = [], 0
    for path in sorted(directory.glob("package/data/*.txt"), reverse=True):
        text = path.read_text(encoding="utf-8")
        texts.append(text)
        size += len(text.encode())
        if size >= bytes_wanted:
            break
    lines = [line for text in texts for line in re.split(r"(?<=[.!?]) ", text)]
    if size < bytes_wanted:
        raise RuntimeError(f"the corpus in {directory} has only {size} bytes")
    return [(b"%d" % number, line.encode(), [], None) for number, line in enumerate(lines)]
