"""A member of a consumer group, as every client's driver runs it, and what it says meanwhile.

    DRIVER member BOOTSTRAP GROUP TOPIC [OPTION=VALUE]...

Options: protocol (classic or consumer), assignor (by its name on the wire), instance (a static member's id). It reads
until its standard input ends, so that none outlives the tests, then leaves. It commits only what it has said that it
read, and says what happened, one JSON object a line, each with "t", the seconds since 1970:

    {"e": "assigned", "p": [partition...]}           now these are read too
    {"e": "revoked", "p": [partition...]}            these are read no more
    {"e": "read", "p": partition, "o": [first, last]}
    {"e": "committed", "sent": seconds, "o": {partition: offset}}   the broker acknowledged; `sent` is when it was asked
    {"e": "refused", "why": text}                    a commit failed; Kafka tells clients to go on
    {"e": "fatal", "why": text}                      the client gave up, and ends
"""

import json
import sys
import threading
import time

SESSION_MS = 6_000
HEARTBEAT_MS = 500


def emit(event, **fields):
    sys.stdout.write(json.dumps({"t": time.time(), "e": event, **fields}) + "\n")
    sys.stdout.flush()


class Stop:
    """True as soon as the standard input has ended."""

    def __init__(self):
        self.ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), self.ended.set()), daemon=True).start()

    def __bool__(self):
        return self.ended.is_set()


class Log:
    """What one member says, and what it still has to commit."""

    def __init__(self):
        self.stopped = Stop()
        self.pending = {}

    def assigned(self, partitions):
        if partitions:
            emit("assigned", p=sorted(partitions))

    def revoked(self, partitions):
        for partition in partitions:
            self.pending.pop(partition, None)
        if partitions:
            emit("revoked", p=sorted(partitions))

    def read(self, partition, offsets):
        """Offsets of one partition in the order in which they came."""
        first = offsets[0]
        for offset, following in zip(offsets, [*offsets[1:], None]):
            if following != offset + 1:
                emit("read", p=partition, o=[first, offset])
                first = following
        self.pending[partition] = offsets[-1] + 1

    def due(self):
        """What is to be committed now, and since when."""
        return dict(self.pending), time.time()

    def committed(self, due, sent):
        emit("committed", sent=sent, o=due)
        for partition, offset in due.items():
            if self.pending.get(partition) == offset:
                del self.pending[partition]

    def refused(self, error):
        emit("refused", why=repr(error))

    def fatal(self, error):
        emit("fatal", why=repr(error))
        sys.exit(3)


def options(texts):
    return dict(text.split("=", 1) for text in texts)
