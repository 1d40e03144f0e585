"""kcat: see records.py for the verbs.

kcat gives one set of headers, and one meaning of "empty" (null or empty, -Z), to all messages of a run: each stretch
of records that can share a run gets one.  It cannot set timestamps.
"""

import re
import subprocess
import sys

import records

# Between key and value, and between messages: long enough never to occur inside one.
KEY_END = b"<--key ends here-->"
MESSAGE_END = b"<--message ends here-->"
# Lengths first, so that bytes of any value can be told apart; headers have no length, hence the mark behind them.
FORMAT = "%p %o %T %K %S\\n%k%s%h" + MESSAGE_END.decode()


def stretches(stream):
    """Yields (headers, whether empty means null, messages) for the longest stretches that one run can carry."""
    headers, empty_is_null, messages = None, None, []
    for key, value, next_headers, _timestamp in stream:
        wants = {part is None for part in (key, value) if not part}
        if len(wants) == 2:
            sys.exit("kcat cannot give one message a null and an empty part")
        fits = headers == next_headers and (not wants or empty_is_null in (None, *wants))
        if messages and not fits:
            yield headers, empty_is_null, messages
            empty_is_null, messages = None, []
        headers = next_headers
        empty_is_null = wants.pop() if wants else empty_is_null
        messages.append((key or b"") + KEY_END + (value or b""))
    if messages:
        yield headers, empty_is_null, messages


def produce(bootstrap, topic, codec, idempotent):
    base = ["kcat", "-P", "-b", bootstrap, "-t", topic, "-z", codec, "-K", KEY_END, "-D", MESSAGE_END]
    if idempotent:
        base += ["-X", "enable.idempotence=true"]
    for headers, empty_is_null, messages in stretches(records.read()):
        args = list(base)
        for name, value in headers:
            args += ["-H", name.encode() if value is None else name.encode() + b"=" + value]
        if empty_is_null:
            args.append("-Z")
        subprocess.run(args, input=MESSAGE_END.join(messages), check=True, timeout=120)


def split_headers(text):
    """Undoes kcat's `name=value,name=NULL`; the records under test have no commas in header values."""
    for header in text.split(b",") if text else ():
        name, value = header.split(b"=", 1)
        yield name.decode(), None if value == b"NULL" else value


def consume(bootstrap, topics):
    for topic in topics:
        args = ["kcat", "-C", "-b", bootstrap, "-t", topic, "-o", "beginning", "-e", "-q", "-f", FORMAT]
        seen = subprocess.run(args, check=True, stdout=subprocess.PIPE, timeout=120).stdout
        at = 0
        while at < len(seen):
            head = re.compile(rb"(\d+) (\d+) (-?\d+) (-?\d+) (-?\d+)\n").match(seen, at)
            partition, offset, timestamp, key_length, value_length = map(int, head.groups())
            value_at = head.end() + max(key_length, 0)
            headers_at = value_at + max(value_length, 0)
            headers_end = seen.index(MESSAGE_END, headers_at)
            key = None if key_length < 0 else seen[head.end() : value_at]
            value = None if value_length < 0 else seen[value_at:headers_at]
            headers = split_headers(seen[headers_at:headers_end])
            records.write(topic, partition, offset, timestamp, key, value, headers)
            at = headers_end + len(MESSAGE_END)


records.main(produce, consume)
