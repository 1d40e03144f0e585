"""What the admin scripts of the Python clients share: one scenario's names and numbers, and two checks.

Each script is run as `SCRIPT BOOTSTRAP` on a fresh broker and ends with exit code 0 if all is as Kafka would have it.
"""

TOPIC = "admin.topic-1"
BAD_NAME = "no/slash"
CONFIG = {"retention.ms": "123456789"}
# Error codes of the protocol.
UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC, ALREADY_EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION = 3, 17, 36, 37, 38

# Ten records whose times rise by a second each, but for number 4, which is the latest of all.
START_MS = 1_700_000_000_000
TIMES_MS = [START_MS + 1000 * number for number in range(10)]
TIMES_MS[4] = START_MS + 60_000
# (what is asked, the offset to be answered; -1 is "none"): the first record that is not older.
BY_TIME = [
    (0, 0),
    (START_MS, 0),
    (START_MS + 1, 1),
    (START_MS + 3_000, 3),
    (START_MS + 3_001, 4),
    (START_MS + 9_000, 4),
    (START_MS + 60_000, 4),
    (START_MS + 60_001, -1),
]


def equal(what, found, wanted):
    if found != wanted:
        raise SystemExit(f"{what}: {found!r}, not {wanted!r}")


def refused(what, code, function, code_of):
    """`function` must raise, and `code_of` the exception must be the protocol's error `code`."""
    try:
        result = function()
    except Exception as error:
        equal(f"{what}: error code of {error!r}", code_of(error), code)
    else:
        raise SystemExit(f"{what}: not refused, gave {result!r}")
