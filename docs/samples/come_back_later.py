"""A caller that comes back when a full server says that there may be room."""

import random
from typing import Any

import trio
from grpclib import GRPCError

from dk_trio import ModuleClient
from dk_trio.pb.google.rpc import RetryInfo


async def run_job(client: ModuleClient, data: dict[str, Any], *, attempts: int = 10) -> list[dict[str, Any]]:
    while True:
        try:
            async with client.start(data) as outputs:
                return [output async for output in outputs]
        except GRPCError as error:
            waits = [detail.retry_delay for detail in error.details or () if isinstance(detail, RetryInfo)]
            attempts -= 1
            if not waits or not attempts:
                raise
        # Some longer than others, or those who were refused together come back together.
        await trio.sleep(waits[0].total_seconds() * random.uniform(1, 2))
