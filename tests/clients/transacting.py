"""What the transaction scripts of the Python clients share: one scenario's names.

Each script is run as `SCRIPT BOOTSTRAP` on a fresh broker, and tells what came of its parts as those of admin.py do:

- ends: what is committed is seen by readers of either isolation level, what is aborted or still open by one alone.
- fence: of two producers with one transactional id the older one can do no more.
- offsets: a group's offsets are committed with the transaction, or not at all; pending ones hold up who asks.
- timeout: a transaction that nobody ends is aborted, and readers go on.
- loop: read, process, write: each input makes one output, though a third of the transactions are aborted.
"""

import time

INPUTS = 90
A_TRANSACTION = 10


def is_aborted(turn):
    """Whether the loop's transaction with this number is aborted."""
    return turn % 3 == 1


def settled(wanted):
    """Whether to look no more, by what was seen of `wanted`. EndTxn is answered before the markers are written, so readers
    may for a moment see less; they never see anything else."""
    deadline = time.monotonic() + 60
    return lambda found: found == wanted or found != wanted[: len(found)] or time.monotonic() > deadline
