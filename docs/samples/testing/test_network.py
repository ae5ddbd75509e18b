from functools import partial
from random import Random

import pytest
import trio
from grpclib import GRPCError
from reminder import Reminders

from dk_trio import ModuleClient
from dk_trio.testing import Conditions, Network, serve_in_memory


async def test_a_job_over_a_network_that_breaks(virtual_clock):
    network = Network(Random(7))  # the seed decides every delay
    network.conditions("*", "*", Conditions(latency=0.05, jitter=0.01))
    async with (
        serve_in_memory(Reminders) as served,
        network.host("server", served.server.serve_stream),
        ModuleClient.connect("server", connect=partial(network.connect, "client", "server")) as client,
        client.start({"text": "tea", "after": 3600}, protocol="remind") as outputs,
    ):
        await anext(outputs)
        network.cut("client", "server")
        with pytest.raises(GRPCError, match="UNAVAILABLE"):
            await anext(outputs)
        await trio.sleep(1)
        assert served.server.statistics().admission.running == 0  # the server has noticed, and cancelled the job
