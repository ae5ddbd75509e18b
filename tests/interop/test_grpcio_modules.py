"""What grpcio sees that knows the contract alone: several modules, their mesh, and the codes that are logged."""

import io
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from dk_trio import ModuleServer, Settings
from dk_trio.observe.access_log import AccessLog
from dk_trio.observe.logs import logging_to
from dk_trio.provider import Provider
from dk_trio.services.stores.sqlite import SqliteDatabase
from dk_trio.settings import ServicesSettings, TaskSettings

pytest.importorskip("grpc", reason="grpcio is the peer")

from tests.interop.grpcio_module import SERVICE, Peer, aside, connected, start
from tests.module.sample import Message, module_with

REGISTRY = "agentic_mesh_protocol.registry.v1.RegistryService"
SETUPS = "agentic_mesh_protocol.setup.v1.SetupService"


def named(name: str) -> Any:
    """A module that tells its setup's prefix and its name, and then waits or asks another module, as it is told."""

    async def say(self: Any, data: Message, setup: Any, context: Any) -> None:
        await context.send(Message(text=f"{setup.prefix}{name}"))
        if data.text == "wait":
            await trio.sleep_forever()
        if data.text.startswith("ask "):
            other = data.text.removeprefix("ask ")
            found = await context.registry.discover_by_id(f"modules:{other}")
            async with context.communication.start_module(
                found.address, found.port, {"root": {"protocol": "message"}}, f"setups:{other}", "missions:m"
            ) as outputs:
                async for answer in outputs:
                    await context.send(Message(text=answer["output"]["root"].get("text", "")))

    return module_with(say, name=name, metadata={"module_id": f"modules:{name}"})


@asynccontextmanager
async def running(*modules: Any, settings: Settings | None = None, **arguments: Any) -> AsyncIterator[str]:
    settings = settings or Settings(services=ServicesSettings(data_dir=None))
    with trio.fail_after(60):
        async with ModuleServer(*modules, settings=settings, **arguments).running(port=0) as address:
            yield address


def texts(peer: Peer, setup_id: str, **arguments: Any) -> list[str]:
    told = peer.start(setup_id, **arguments)
    assert told.code == "OK", told
    return [root["text"] for root in told.roots("message")]


async def test_each_of_several_modules_is_found_by_clients_that_know_setups_or_ids(tmp_path: Path) -> None:
    path = tmp_path / "right.json"
    path.write_text('{"setups:loud": {"prefix": "!"}}')
    configured = {
        "setup_version": {"id": "setup_versions:1", "setup_id": "setups:new", "version": "1"},
        "content": {"prefix": "#"},
        "mission_id": "missions:m",
    }

    def calls(address: str) -> None:
        with connected(address) as peer:
            left, elsewhere = [("dk-trio-module-id", "modules:left")], [("dk-trio-module-id", "far")]
            assert texts(peer, "setups:left") == ["left"]
            assert texts(peer, "setups:loud") == ["!right"]
            assert texts(peer, "setups:any", metadata=left) == ["left"]
            refused = peer.start("setups:any")
            assert refused.code == "INVALID_ARGUMENT"
            assert "served here are modules:left, modules:right" in refused.details
            assert refused.messages[0]["output"]["code"] == "AMBIGUOUS_MODULE"
            assert peer.start("setups:left", metadata=elsewhere).code == "NOT_FOUND"

            assert peer.call("ConfigSetupModule", configured).code == "INVALID_ARGUMENT"
            assert peer.call("ConfigSetupModule", configured, metadata=left).code == "OK"
            assert texts(peer, "setups:new") == ["#left"]

            codes = [peer.call("GetModuleInput", {"module_id": it}).code for it in ("left", "modules:right", "far", "")]
            assert codes == ["OK", "OK", "NOT_FOUND", "INVALID_ARGUMENT"]
            jobs = peer.call("GetModuleJobs").messages[0]["jobs"]
            assert len(jobs) == 4  # of all modules
            for job in jobs:
                assert peer.call("GetModuleStatus", {"job_id": job["job_id"]}, metadata=elsewhere).code == "OK"

            names = ["", "liveness", "readiness", SERVICE, "modules:left"]
            assert [peer.health(name) for name in names] == ["SERVING"] * 4 + ["NOT_FOUND"]
            assert SERVICE in peer.services()

    async with running(named("left"), named("right"), setup_file={"right": path}) as address:
        await aside(calls, address)


async def test_modules_of_one_port_are_found_called_and_withdrawn_in_a_mesh() -> None:
    def stored(peer: Peer, module: str) -> str:
        told = peer.call(
            "CreateSetup",
            {
                "name": module,
                "organisation_id": "organisations:o",
                "owner_id": "users:u",
                "module_id": f"modules:{module}",
                "current_setup_version": {"version": "1", "content": {"prefix": ">"}},
                "status": "READY",
            },
            service=SETUPS,
            metadata=[("dk-trio-setup-id", f"setups:{module}")],
        )
        assert told.code == "OK", told
        return str(told.messages[0]["setup"]["id"])

    def states(peer: Peer) -> dict[str, tuple[str, int]]:
        told = [peer.call("GetModule", {"module_id": f"modules:{it}"}, service=REGISTRY) for it in ("left", "right")]
        return {it.messages[0]["id"]: (it.messages[0]["status"], it.messages[0]["port"]) for it in told}

    def ready(address: str) -> None:
        with connected(address) as peer:
            while peer.health("readiness") != "SERVING":
                pass

    def asked(address: str) -> list[str]:
        with connected(address) as peer:
            assert texts(peer, "setups:right") == [">right"]  # whose it is, the provider says
            return texts(peer, "setups:third", text="ask left")

    with trio.fail_after(60):
        async with Provider(SqliteDatabase(None)).running(port=0) as its_address:
            settings = Settings(services=ServicesSettings(mode="remote", provider=its_address, data_dir=None))
            server = ModuleServer(named("left"), named("right"), named("third"), settings=settings)
            with connected(its_address) as provider:
                for name in ("left", "right", "third"):
                    assert await aside(stored, provider, name) == f"setups:{name}"
                async with server.running(port=0) as address:
                    await aside(ready, address)
                    port = int(address.rpartition(":")[2])
                    active, gone = ("MODULE_STATUS_ACTIVE", port), ("MODULE_STATUS_READY", port)
                    assert await aside(states, provider) == {"modules:left": active, "modules:right": active}
                    assert list(filter(None, await aside(asked, address))) == [">third", ">left"]
                    await server.drain(0)
                    assert await aside(states, provider) == {"modules:left": gone, "modules:right": gone}


async def test_the_access_log_has_the_codes_that_the_client_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log, stream = AccessLog(), io.StringIO()
    full = Settings(
        services=ServicesSettings(data_dir=None),
        tasks=TaskSettings(max_concurrent_tasks=1, backpressure_strategy="reject"),
    )
    seen: dict[str, str] = {}

    def calls(address: str) -> None:
        with connected(address) as peer:

            def call(name: str, request: dict[str, Any], **arguments: Any) -> None:
                told = peer.call("StartModule", request, metadata=[("x-request-id", name)], **arguments)
                seen[name] = told.code

            def then_leave(call_: Any) -> None:
                if "full" not in seen:
                    call("full", start("setups:a"))
                call_.cancel()

            call("fine", start("setups:a"))
            call("unknown protocol", start("setups:a", protocol="nope"))
            call("left", start("setups:a", text="wait"), then=then_leave)
            for name, path, data in (
                ("no method", f"/{SERVICE}/Nope", b""),
                ("no service", "/x.Y/Z", b""),
                ("no message of this kind", f"/{SERVICE}/GetModuleStatus", b"\xff\xff"),
                ("no such job", f"/{SERVICE}/GetModuleStatus", b""),
            ):
                seen[name] = peer.raw(path, data, [("x-request-id", name)])

    def waits(address: str, told: partial[None]) -> None:
        with connected(address) as peer:
            call = peer.call(
                "StartModule",
                start("setups:a", text="wait"),
                metadata=[("x-request-id", "drained")],
                then=lambda _: told(),
            )
            seen["drained"] = call.code

    json_lines = Settings.from_environment({"DIGITALKIN_LOG_FORMAT": "json"})
    with logging_to(json_lines, stream=stream), trio.fail_after(60):
        server = ModuleServer(named("a"), settings=full, interceptors=log.interceptors, hooks=log.hooks)
        async with server.running(port=0) as address, trio.open_nursery() as nursery:
            await aside(calls, address)
            begun = trio.Event()
            nursery.start_soon(aside, waits, address, partial(trio.from_thread.run_sync, begun.set))
            await begun.wait()
            await server.drain(0)
    lines = map(json.loads, stream.getvalue().splitlines())
    logged = {line["request"]: line["code"] for line in lines if line["logger"] == "dk_trio.access"}
    assert logged == seen
    assert seen == {
        "fine": "OK",
        "unknown protocol": "INVALID_ARGUMENT",
        "full": "RESOURCE_EXHAUSTED",
        "left": "CANCELLED",
        "no method": "UNIMPLEMENTED",
        "no service": "UNIMPLEMENTED",
        "no message of this kind": "INTERNAL",
        "no such job": "NOT_FOUND",
        "drained": "UNAVAILABLE",
    }
