"""FastStream on aiokafka or on confluent-kafka: `faststream_app.py BOOTSTRAP kafka|confluent`, until SIGTERM."""

import asyncio
import sys

from faststream import FastStream

bootstrap, kind = sys.argv[1:]
if kind == "kafka":
    from faststream.kafka import KafkaBroker as Broker
else:
    from faststream.confluent import KafkaBroker as Broker

broker = Broker(bootstrap)


@broker.subscriber("lines", group_id=f"faststream-{kind}", auto_offset_reset="earliest")
@broker.publisher(f"faststream-{kind}-out")
async def shout(line: str) -> str:
    return line.upper()


asyncio.run(FastStream(broker).run())
