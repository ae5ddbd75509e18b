from shouter import Shouter

from dk_trio.testing import run_job


async def test_it_shouts(virtual_clock):
    result = await run_job(Shouter, {"text": "hello wire"}, protocol="shout")
    assert [output["text"] for output in result.outputs] == ["HELLO!", "WIRE!"]
