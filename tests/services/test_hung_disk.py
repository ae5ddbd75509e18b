"""A disk that hangs: whoever waits for it is told in time, and a server still ends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.module.sample import module_with
from tests.module.served import outputs_of, served

from dk_trio.services.stores._sqlite import Connections
from dk_trio.services.stores.sqlite import SqliteDatabase

from .test_database import rows as work


@contextmanager
def hung(monkeypatch: pytest.MonkeyPatch, method: str) -> Iterator[Callable[[], None]]:
    """This method of the connections hangs in its thread, until the end of the block or the call of what it gets."""
    done = threading.Event()
    real: Any = getattr(Connections, method)

    def hangs(self: Connections, *arguments: Any) -> Any:
        done.wait(25)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Connections, method, hangs)
        try:
            yield done.set
        finally:
            done.set()


async def test_a_database_that_cannot_be_closed_is_left_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dk_trio.services.stores.sqlite.CLOSE_GRACE", 0.1)
    database = SqliteDatabase(tmp_path)
    database.declare("rows", ["CREATE TABLE rows (value INTEGER)"])
    with trio.fail_after(20):
        with hung(monkeypatch, "close"):
            async with database.opened():
                await database.write(work("INSERT INTO rows VALUES (1)"))
        assert "was not closed within 0.1 s: its disk hangs" in caplog.text
        # The thread goes on as soon as it can; who comes after it waits for it, and finds what was acknowledged.
        async with database.opened():
            assert await database.read(work("SELECT value FROM rows")) == [(1,)]


async def test_a_health_check_of_a_disk_that_hangs_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dk_trio.healthchecks.PROBE_TIMEOUT", 0.1)

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None: ...

    module = module_with(handle, services_config_params={"storage": {"config": {}}})
    with trio.fail_after(20):
        async with served(module, data_dir=tmp_path) as (server, client):
            with hung(monkeypatch, "transact"):
                for _ in range(3):
                    root = (await outputs_of(client, {"protocol": "healthcheck_services"}))[1]["root"]
                    assert {row["name"]: row["message"] for row in root["services"]}["storage"] == (
                        "no answer within 0.1 s"
                    )
                assert server.statistics().rpc.rpcs == 1  # they do not pile up
            while server.statistics().rpc.rpcs:  # noqa: ASYNC110  there is no event for it
                await trio.sleep(0.01)
            root = (await outputs_of(client, {"protocol": "healthcheck_services"}))[1]["root"]
            assert root["overall_status"] == "healthy"
