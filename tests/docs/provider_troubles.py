"""What goes wrong with a services-provider, done on purpose: each function gives the text that somebody is told."""

import re
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import trio
from grpclib import GRPCError
from tests.docs.job_troubles import logged
from tests.module.remote_kit import MODULE_ID, doze, echo, keep, module
from tests.module.served import outputs_of, served
from tests.provider.kit import provided

from dk_trio import ModuleServer, Settings, extensions
from dk_trio.errors import DkTrioError
from dk_trio.pb.agentic_mesh_protocol.cost.v1 import CostServiceStub, GetCostsRequest
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import CreateSetupRequest, SetupServiceStub
from dk_trio.provider import SqliteDatabase
from dk_trio.services.setup import SetupVersion
from dk_trio.services.stores._postgres import Owner
from dk_trio.services.stores.contents import DiskContents
from dk_trio.settings import ServerSettings, ServicesSettings

KEY = {extensions.IDEMPOTENCY_KEY: "3f1c"}


async def status_of(call: Callable[[], Any]) -> str:
    with pytest.raises(GRPCError) as caught:
        await call()
    return f"{caught.value.status.name}: {caught.value.message}"


# -- when a provider starts -------------------------------------------------------------------------------------------


async def second_on_postgres() -> str:
    """Without a server: what it would answer is given."""

    async def run(*_: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [SimpleNamespace(result=SimpleNamespace(rows=[(4711, "dk-trio", "10.0.0.7")]))]

    owner = Owner(SimpleNamespace(run=run), "postgresql://host/mesh")
    return (await owner._taken("public")).message


def newer_release() -> str:
    """On a clock and in a loop of its own: what is on disk is written by a thread, which virtual time does not know."""

    async def ask() -> str:
        database = SqliteDatabase(Path("provider"))
        database.declare("records", ["CREATE TABLE records (a TEXT)"])
        with trio.fail_after(30):
            async with database.opened():
                await database.open()
            with sqlite3.connect(Path("provider") / "dk-trio.sqlite3") as file:
                file.execute("UPDATE schemas SET version = 3")
            file.close()
            async with database.opened():
                with pytest.raises(DkTrioError) as caught:
                    await database.open()
        return caught.value.message

    with ThreadPoolExecutor() as executor:
        return executor.submit(trio.run, ask).result()


def contents_of_another() -> str:
    """See `newer_release`."""

    async def known(_: list[str]) -> set[str]:
        await trio.lowlevel.checkpoint()
        return set()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"content"

    async def ask() -> str:
        with trio.fail_after(30):
            contents = DiskContents(Path("data", "files"))
            await contents.claim("one", known)
            await contents.write(pieces())
            with pytest.raises(DkTrioError) as caught:
                await DiskContents(Path("data", "files")).claim("another", known)
        return caught.value.message

    with ThreadPoolExecutor() as executor:
        return executor.submit(trio.run, ask).result()


# -- when a provider refuses ------------------------------------------------------------------------------------------


async def broken_rule() -> str:
    async with provided(validate="strict") as peer:
        stub = CostServiceStub(peer.channel)
        return await status_of(lambda: stub.get_costs(GetCostsRequest(mission_id="m", limit=1)))


async def used_key() -> str:
    async with provided() as peer:
        stub = SetupServiceStub(peer.channel)
        await stub.create_setup(CreateSetupRequest(name="a", module_id="modules:m"), metadata=KEY)
        request = CreateSetupRequest(name="b", module_id="modules:m")
        return await status_of(lambda: stub.create_setup(request, metadata=KEY))


# -- when a server has a provider -------------------------------------------------------------------------------------


class Stored:
    """Setups that need no provider."""

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        return SetupVersion(setup_id=setup_id, id="setup_versions:v", content={"prefix": ""})


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def away(handle: Any, *, setups: Any = None, setup_id: str = "setups:s", jobs: int = 1) -> tuple[str, list[str]]:
    """A server whose provider is not there: the status of the last of its jobs, and what the log says."""
    port = closed_port()
    environ = {"SERVICE_MODE": "remote", "DIGITALKIN_PROVIDER": f"127.0.0.1:{port}"}
    status = ""
    with logged() as lines:
        async with served(module(handle), settings=Settings.from_environment(environ), setups=setups) as (_, client):
            for _ in range(jobs):
                try:
                    await outputs_of(client, {"text": "x", "count": 20}, protocol="message", setup_id=setup_id)
                except GRPCError as error:
                    status = f"{error.status.name}: {error.message}"
    return status.replace(str(port), "50051"), [line.replace(str(port), "50051") for line in lines]


async def setup_cannot_be_told() -> str:
    status, _ = await away(echo, setup_id="setups:quotes")
    return status


async def service_not_reached() -> str:
    status, _ = await away(keep, setups=Stored())
    return status


async def breaker_open() -> str:
    status, _ = await away(keep, setups=Stored(), jobs=6)
    return re.sub(r"tried in [\d.]+ s", "tried in 0.9 s", re.sub(r"for [\d.]+ s", "for 12.3 s", status))


async def breaker_opens() -> str:
    _, lines = await away(keep, setups=Stored(), jobs=6)
    (line,) = [line for line in lines if "is not reached" in line]
    return re.sub(r"in [\d.]+ s", "in 12.3 s", line)


async def no_signals_out() -> str:
    _, lines = await away(doze, setups=Stored())
    (line,) = [line for line in lines if "takes no signals" in line]
    return line


async def no_signals_in() -> str:
    _, lines = await away(doze, setups=Stored())
    (line,) = [line for line in lines if "no signals come in" in line]
    return re.sub(r"since [\d.]+ s", "since 5.6 s", re.sub(r"\d+ polls", "8 polls", line))


async def registration(*, host: str, advertise: str | None, seconds: float) -> list[str]:
    port = closed_port()
    settings = Settings(
        services=ServicesSettings(mode="remote", provider=f"127.0.0.1:{port}", data_dir=None),
        server=ServerSettings(advertise_host=advertise),
    )
    server = ModuleServer(module(echo), settings=settings)
    with logged() as lines, trio.fail_after(86400), patch("socket.gethostname", lambda: "quotes-7d9f"):
        async with server.running(host=host, port=0) as address:
            await trio.sleep(seconds)
    own = address.rpartition(":")[2]
    return [
        line.replace(str(port), "50051").replace(own, "50055").replace(MODULE_ID, "modules:quotes") for line in lines
    ]


async def not_registered() -> str:
    return (await registration(host="127.0.0.1", advertise="quotes", seconds=20))[0]


async def told_by_name() -> str:
    lines = await registration(host="0.0.0.0", advertise=None, seconds=0)
    return next(line for line in lines if "SERVER_CHANNEL_ADVERTISE_HOST" in line)  # others say who may reach it
