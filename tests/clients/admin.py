"""What the admin scripts of the Python clients share: one scenario's names and numbers, and its checks.

Each script is run as `SCRIPT BOOTSTRAP` on a fresh broker. It runs its parts one after the other, and prints for each
one line: `part: ok`, or `part: ` and what is not as Kafka would have it.
"""

import inspect

TOPIC = "admin.topic-1"
BAD_NAME = "no/slash"
CONFIG = {"retention.ms": "123456789"}
GROUP = "admin.group"
# Error codes of the protocol.
OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC_OR_PARTITION, MESSAGE_TOO_LARGE, INVALID_TOPIC = 1, 3, 10, 17
UNKNOWN_MEMBER_ID, ALREADY_EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION, INVALID_REPLICA_ASSIGNMENT = 25, 36, 37, 38, 39
INVALID_CONFIG, INVALID_REQUEST, SECURITY_DISABLED, LOG_DIR_NOT_FOUND, NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND = (
    40,
    42,
    54,
    57,
    68,
    69,
)
ELECTION_NOT_NEEDED, NO_REASSIGNMENT_IN_PROGRESS, GROUP_SUBSCRIBED_TO_TOPIC, RESOURCE_NOT_FOUND = 84, 85, 86, 91
INVALID_UPDATE_VERSION = 95

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
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def refused(what, code, function, code_of):
    """`function` must raise, and `code_of` the exception must be the protocol's error `code`."""
    try:
        result = function()
    except Exception as error:
        equal(f"{what}: error code of {error!r}", code_of(error), code)
    else:
        raise AssertionError(f"{what}: not refused, gave {result!r}")


async def run_async(*parts):
    """Runs the parts, functions or coroutines, in their order, and prints what came of each."""
    for part in parts:
        try:
            done = part()
            if inspect.isawaitable(done):
                await done
            problem = "ok"
        except Exception as error:
            frames = [frame for frame in inspect.trace() if frame.filename == inspect.getfile(part)]
            problem = " ".join(f"line {frames[-1].lineno}: {error!r}".split())
        print(f"{part.__name__}: {problem}", flush=True)


def run(*parts):
    try:
        run_async(*parts).send(None)
    except StopIteration:
        pass
