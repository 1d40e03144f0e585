"""aiokafka clients that start while the broker is away."""

import asyncio

from aiokafka.errors import KafkaConnectionError, KafkaError


async def started(make):
    """A client that has started, however long the broker is away: aiokafka tries but once.

    A KafkaError that is of no more special kind is what its _find_coordinator makes of a lost connection.
    """
    while True:
        client = make()
        try:
            await client.start()
            return client
        except KafkaError as error:
            await client.stop()
            if type(error) not in (KafkaError, KafkaConnectionError):
                raise
            await asyncio.sleep(0.2)
