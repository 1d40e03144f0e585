"""Faust: counts the lines of each partition in a table, which a restart restores from its changelog topic.

Run as `faust_app.py BOOTSTRAP DIRECTORY worker`.
"""

import sys

import faust

bootstrap, directory = sys.argv[1:3]
del sys.argv[1:3]
app = faust.App(
    "faust",
    broker=f"kafka://{bootstrap}",
    datadir=directory,
    store="memory://",
    topic_partitions=4,
    topic_replication_factor=1,
    web_enabled=False,
    broker_commit_every=50,
)
lines = app.topic("faust-in", key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw")
out = app.topic("faust-out", value_type=bytes, value_serializer="raw", partitions=4)
counts = app.Table("counts", default=int, partitions=4)


@app.agent(lines)
async def count(stream):
    async for event in stream.events():
        counts[event.message.partition] += 1
        number = counts[event.message.partition]
        await out.send(value=b"%d %d %s" % (event.message.partition, number, event.value))


app.main()
