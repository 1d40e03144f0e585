"""Quix Streams: numbers each key's lines with state, which has a changelog topic: `quix_app.py BOOTSTRAP DIRECTORY COUNT`."""

import sys

from quixstreams import Application

bootstrap, directory, count = sys.argv[1:]
app = Application(
    broker_address=bootstrap,
    consumer_group="quix",
    auto_offset_reset="earliest",
    state_dir=directory,
    consumer_extra_config={"session.timeout.ms": 6000},
)
lines = app.topic("lines", key_deserializer="bytes", value_deserializer="bytes")
out = app.topic("quix-out", value_serializer="str")


def number(line, state):
    seen = state.get("seen", 0) + 1
    state.set("seen", seen)
    return f"{seen} {line.decode()}"


app.dataframe(lines).apply(number, stateful=True).to_topic(out)
app.run(count=int(count), timeout=30)
