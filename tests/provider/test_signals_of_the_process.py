"""A provider that is told to stop twice ends as one that is told once: what comes after the drain hastens nothing."""

import os
import signal
from pathlib import Path

import pytest
import trio

from dk_trio.provider import Provider
from dk_trio.services.stores.sqlite import SqliteDatabase


async def test_a_second_signal_while_the_store_is_closed_does_not_end_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = SqliteDatabase(tmp_path)
    close = database._close

    async def slowly() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep(0.01)  # the kernel and Trio hand it over
        await close()

    monkeypatch.setattr(database, "_close", slowly)
    monkeypatch.setattr(signal, "raise_signal", lambda number: pytest.fail(f"signal {number} was raised again"))
    provider = Provider(database, directory=tmp_path)
    with trio.fail_after(30):
        report = await provider.serve(port=0, on_ready=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert report.cut == 0
