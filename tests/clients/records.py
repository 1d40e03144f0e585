"""The neutral form in which every client driver reads and writes records: one JSON object a line.

    {"k": hex or null, "v": hex or null, "h": [[name, hex or null], ...], "t": milliseconds}

A record to be produced may lack "t": the client then stamps it. A consumed one also has "topic", "p" (partition)
and "o" (offset).  Every driver has the same verbs:

    DRIVER produce BOOTSTRAP TOPIC CODEC [idempotent] < records
    DRIVER consume BOOTSTRAP TOPIC...                 > records     (without a group, to the end offsets of now)
    DRIVER member BOOTSTRAP GROUP TOPIC [OPTION]...   > events      (in a group, see members.py)
"""

import json
import sys


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def enhex(data):
    return None if data is None else data.hex()


def read():
    """Yields (key, value, headers, timestamp or None) of each line of the standard input."""
    for line in sys.stdin:
        record = json.loads(line)
        headers = [(name, unhex(value)) for name, value in record["h"]]
        yield unhex(record["k"]), unhex(record["v"]), headers, record.get("t")


def write(topic, partition, offset, timestamp, key, value, headers):
    headers = [[name, enhex(data)] for name, data in headers or ()]
    record = {"topic": topic, "p": partition, "o": offset, "t": timestamp}
    record.update(k=enhex(key), v=enhex(value), h=headers)
    sys.stdout.write(json.dumps(record) + "\n")


def main(produce, consume, member=None):
    """Runs the verb of the command line."""
    verb, bootstrap, *rest = sys.argv[1:]
    if verb == "produce":
        produce(bootstrap, rest[0], rest[1], "idempotent" in rest[2:])
    elif verb == "consume":
        consume(bootstrap, rest)
    else:
        member(bootstrap, *rest)
