import trio
from grpclib import Status
from reminder import Reminders

from dk_trio.testing import run_job, serve_in_memory


async def test_a_job(virtual_clock):
    result = await run_job(Reminders, {"text": "tea", "after": 3600}, protocol="remind", setup={"sign": "?"})
    assert result.ok, result.error
    assert [output["text"] for output in result.outputs] == ["tea?"]
    assert result.seconds == 3600


async def test_an_input_that_does_not_fit(virtual_clock):
    result = await run_job(Reminders, {"text": "tea", "after": "soon"}, protocol="remind")
    assert result.status is Status.INVALID_ARGUMENT
    assert "after" in result.error


async def test_a_caller_who_leaves(virtual_clock):
    async with serve_in_memory(Reminders) as served:
        async with served.client.start({"text": "tea", "after": 3600}, protocol="remind") as outputs:
            await anext(outputs)
        await trio.sleep(1)  # the server hears of it
        [status] = (await served.client.jobs()).values()  # the server's jobs: this one, which was cancelled
    assert status.name == "CANCELED"
