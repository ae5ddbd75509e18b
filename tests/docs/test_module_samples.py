"""The samples of the quickstart do what the page says."""

import ast
from pathlib import Path

import call_shouter
import own_provider
import pytest
import trio
from shouter import Shouter
from test_a_mesh import test_a_mesh_survives as test_a_mesh_survives
from test_drains import test_servers_that_come_and_go as test_servers_that_come_and_go
from test_shouter import test_it_shouts as test_it_shouts

from dk_trio import ModuleServer


async def test_call_shouter(capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(10):
        async with ModuleServer(Shouter).running(port=0) as address:
            await call_shouter.main(address)
    roots = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    assert [root["protocol"] for root in roots] == ["module_start_info", "shout", "shout", "end_of_stream"]


async def test_own_provider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(30):
        await own_provider.main(tmp_path)
    assert capsys.readouterr().out == "hello, Ada\n"
