"""Jobs that use services, struck down before each single step, as `test_every_checkpoint` does it to a job without.

The victim stores a record, pays, uploads a file, adds to the history of its mission, and asks a tool: a module of the
same process, over memory. Whatever strikes it, and whenever: its slot is free, no task and no lease of a channel is
left, the tool's job has ended, each write that was acknowledged is there, the history is there, and the database serves
others. The same holds for a configuration that looks for its tool, for a health check of all services, and for a form
whose fetcher is shared: of two who wait for it only the one that is struck is told.

A suite's run strikes every `PARTS`th step, each kind of strike others; a night's strikes all of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import trio
from grpclib.const import Status

from dk_trio import ModuleClient
from dk_trio.lifecycle import Reason
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    ConfigSetupModuleRequest,
    GetConfigSetupModuleRequest,
    ModuleServiceStub,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion
from dk_trio.pb.google.protobuf import Struct

from .acts import Plan
from .service_world import FORM, ServiceWorld
from .test_every_checkpoint import BYSTANDER, KINDS, VICTIM, AtStep, Kind, sessions
from .world import Caller, Complaints, replay, run_seeded, seeds

BOUND = 20.0
"""Seconds after a strike within which all is over: a fetcher that begins again takes 1, a cleanup with its flush 7."""
PARTS = 8

FOR_ALL = {"drain", "server cancelled"}
"""Kinds that strike bystanders too."""


class ServiceCaller(Caller):
    """Calls what is no job, too."""

    async def configure_with_tool(self, client: ModuleClient) -> None:
        request = ConfigSetupModuleRequest(
            setup_version=SetupVersion(id="v1", setup_id="setups:v"),
            content=Struct.from_dict(FORM),
            mission_id=self.name,
        )
        with self._ending():
            reply = await ModuleServiceStub(client.channel).config_setup_module(request, metadata={"name": self.name})
            assert reply.setup_version is not None
            assert reply.setup_version.content is not None
            self.content = reply.setup_version.content.to_dict()

    async def check_health(self, client: ModuleClient) -> None:
        root = {"protocol": "healthcheck_services"}
        with self._ending():
            async with client.start(root, metadata={"name": self.name}) as outputs:
                async for output in outputs:
                    if "overall_status" in output:
                        assert output["overall_status"] == "healthy", output

    async def fill_in_form(self, client: ModuleClient) -> None:
        with self._ending():
            stub = ModuleServiceStub(client.channel)
            reply = await stub.get_config_setup_module(GetConfigSetupModuleRequest(), metadata={"name": self.name})
            assert reply.config_setup_schema is not None
            assert reply.config_setup_schema.to_dict()["properties"]["size"]["enum"] == ["small", "large"]


@cache
def configured() -> dict[str, Any]:
    """What a configuration makes of the form, the tool resolved."""

    async def configure() -> dict[str, Any]:
        world, caller = ServiceWorld(), ServiceCaller(VICTIM)
        async with world.opened(), world.connected("a") as client:
            await caller.configure_with_tool(client)
        return caller.content

    content: dict[str, Any] = run_seeded(0, configure)
    assert "setups:tool" in content["resolved_tools"]
    return content


async def job(kind: Kind, step: int | None) -> AtStep:
    return await struck(kind, step, lambda caller, client: caller.call(client, setup_id="setups:v"))


async def configuration(kind: Kind, step: int | None) -> AtStep:
    return await struck(kind, step, ServiceCaller.configure_with_tool)


async def health_check(kind: Kind, step: int | None) -> AtStep:
    return await struck(kind, step, ServiceCaller.check_health)


async def form(kind: Kind, step: int | None) -> AtStep:
    return await struck(kind, step, ServiceCaller.fill_in_form, shared=True)


async def struck(kind: Kind, step: int | None, act: Any, *, shared: bool = False) -> AtStep:
    """The victim does this. Returns what the instrument has seen.

    Args:
        kind: How it is struck.
        step: Before which step; None: not at all.
        act: What it does.
        shared: Whether a bystander does the same, half a second later.
    """
    world = ServiceWorld(configured())
    world.ledger.add(VICTIM, Plan())
    victim, bystander = ServiceCaller(VICTIM), ServiceCaller(BYSTANDER)
    world.callers[VICTIM] = victim
    instrument = AtStep(world, kind, step)
    async with world.opened():
        async with world.connected("a") as client, world.connected("b") as other, trio.open_nursery() as nursery:

            async def stand_by() -> None:
                await trio.sleep(0.5)
                await act(bystander, other)

            await client.channel.ready()
            await other.channel.ready()
            with instrument:
                if shared:
                    nursery.start_soon(stand_by)
                await act(victim, client)
                await world.until_quiet(BOUND)
        await world.until_over(BOUND)
        await world.check_stored(VICTIM, world.done)
    assert victim.over
    assert victim.status in {Status.OK, kind.status}
    if shared and (step is None or kind not in {KINDS[name] for name in FOR_ALL}):
        assert bystander.status is Status.OK
        assert world.fetches <= 2
    assert set(world.server.statistics().jobs.ended) <= {Reason.COMPLETED, kind.reason}
    if victim.status is Status.OK and act is not ServiceCaller.configure_with_tool and "history" in world.done:
        assert world.done[-1] == "all"
    return instrument


@pytest.mark.parametrize("part", seeds(1))
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("function", [job, configuration, health_check, form])
def test_it_is_struck_at_every_checkpoint(function: Any, name: str, part: int, complaints: Complaints) -> None:
    kind = KINDS[name]
    configured()
    targets = run_seeded(0, function, kind, None).targets
    assert targets or (function is not job and kind.target is sessions)
    assert complaints.texts == []
    for step in targets[(part + list(KINDS).index(name)) % PARTS :: PARTS]:
        with replay(function=function.__name__, kind=name, step=step):
            run_seeded(0, function, kind, step)
            assert complaints.texts == []
