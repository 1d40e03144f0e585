"""The words of the drivers that read, process and write in transactions, and of those that watch.

    DRIVER process BOOTSTRAP GROUP INPUT OUTPUT,OUTPUT PARTITIONS NAME TRANSACTIONAL_ID SEED [INPUT_PARTITION...]
    DRIVER observe BOOTSTRAP read_committed|read_uncommitted OUTPUT,OUTPUT PARTITIONS

Both run until their standard input ends. A processor writes to each of the outputs one record for each input; with
input partitions in its arguments it reads these alone, else it is a member of the group. It says, besides "fatal":

    {"e": "ending", "x": transaction, "commit": whether, "in": [[partition, offset]...]}   before it asks for the end
    {"e": "committed", "x": transaction}                                      the broker acknowledged
    {"e": "aborted", "x": transaction}                                        likewise
    {"e": "again", "why": text}                                               an error after which it tries again
    {"e": "quit"}                                                             only a new process can go on
    {"e": "failed", "x": transaction, "why": text}                            an error; what follows says how it ended

An observer says what it sees in order, and how far it is, past what it is not shown too:

    {"e": "seen", "r": [[topic, partition, offset, value]...]}
    {"e": "at", "p": [[topic, partition, offset]...]}
"""

import random
import sys
import traceback

import members

TRANSACTION_MS_MAX = 15_000
INPUTS_MAX = 40
ABORTS = 0.15
# An output's partition is its input's offset modulo their count, so that a transaction is in several.


def value(transaction, partition, offset):
    return f"{transaction} {partition} {offset}".encode()


class Work:
    """A processor's transactions: names them, says what becomes of them, and decides which are aborted."""

    def __init__(self, name, seed):
        self.name, self.count, self.random = name, 0, random.Random(f"{name} {seed}")
        self.stopped = members.Stop()

    def begin(self):
        self.count += 1
        self.transaction = f"{self.name}/{self.count}"

    def take(self):
        """How many inputs the next transaction has at most."""
        return self.random.randint(1, INPUTS_MAX)

    def ending(self, inputs):
        """Whether to commit."""
        commit = self.random.random() >= ABORTS
        members.emit("ending", x=self.transaction, commit=commit, **{"in": inputs})
        return commit

    def committed(self):
        members.emit("committed", x=self.transaction)

    def aborted(self):
        members.emit("aborted", x=self.transaction)

    def failed(self, error):
        members.emit("failed", x=self.transaction, why=repr(error))


def fatal(error):
    traceback.print_exc()
    members.emit("fatal", why=repr(error))
    sys.exit(3)


def seen(records):
    if records:
        members.emit("seen", r=records)


def at(positions):
    if positions:
        members.emit("at", p=positions)


def main(process, observe):
    """Runs the verb of the command line."""
    verb, bootstrap, *rest = sys.argv[1:]
    if verb == "process":
        group, source, sinks, partitions, name, transactional_id, seed, *own = rest
        work, own = Work(name, seed), list(map(int, own))
        process(bootstrap, group, source, sinks.split(","), int(partitions), work, transactional_id, own)
    else:
        isolation, sinks, partitions = rest
        places = [(sink, partition) for sink in sinks.split(",") for partition in range(int(partitions))]
        observe(bootstrap, isolation, places, members.Stop())
