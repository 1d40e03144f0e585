"""What the compaction part writes: record number n of every topic is always the same, and lies at offset n."""

import hashlib

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
LARGE_EVERY, LARGE_BYTES = 400, 100_000


def topic(codec):
    return f"map-{codec}"


def record(number):
    """Key and value: few keys that change all the time, many that seldom do, some deleted, and some values large."""
    key = f"hot {number * 7919 % 20}" if number % 3 else f"cold {number * 104729 % 400}"
    if number % 11 == 7:
        return key.encode(), None
    if number % LARGE_EVERY == 0:
        noise = hashlib.shake_128(b"%d" % number).hexdigest(LARGE_BYTES // 2)
        return key.encode(), noise.encode()
    return key.encode(), f"{number} {'so it goes, ' * (number % 23)}".encode()
