import pytest
import trio
from grpclib import GRPCError
from reminder import Reminders

from dk_trio.testing import FakeProvider, serve_in_memory


async def test_it_waits_an_hour_sits_out_an_outage_and_is_cancelled(virtual_clock):
    async with FakeProvider() as provider, serve_in_memory(Reminders, provider=provider) as served:
        await provider.put_setup({"sign": "?"}, module_id=Reminders)
        async with served.client.start({"text": "tea", "after": 3600}, protocol="remind") as outputs:
            await trio.sleep(3590)
            async with provider.outage():  # the hour ends in it
                await trio.sleep(60)
            await anext(outputs)  # module_start_info, which every job sends
            assert (await anext(outputs))["root"]["text"] == "tea?"
        async with served.client.start({"text": "coffee", "after": 3600}, protocol="remind") as outputs:
            await provider.signal((await anext(outputs))["root"]["job_id"], "cancel")
            with pytest.raises(GRPCError, match="CANCELLED"):
                await anext(outputs)
        assert [note["text"] for note in (await provider.records("notes")).values()] == ["tea"]
