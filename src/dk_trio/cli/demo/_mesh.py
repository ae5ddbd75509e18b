"""A services-provider and two modules: one finds the other in the registry and calls it; a signal cancels both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ._processes import DemoError, Served, example, served, step

if TYPE_CHECKING:
    from dk_trio import rpc
    from dk_trio.client import ModuleClient

TEXT = "meet me at the old bridge"
MISSION = "missions:demo"
CANCEL_AFTER = 2  # pages of the second letter


async def show() -> None:
    """Serve a provider and two modules, call one that calls the other, cancel it by a signal, stop.

    Raises:
        DemoError: Something did not happen.
    """
    from dk_trio import rpc
    from dk_trio.client import ModuleClient

    click.echo("\nA mesh: a services-provider, and two modules that it knows.")
    async with served("provider", "--db", ":memory:", "--port", "0") as provider:
        host, _, port = provider.address.rpartition(":")
        remote = ("--provider", provider.address, "--port", "0")
        async with (
            rpc.open_channel(f"{host}:{port}") as channel,
            served("serve", str(example("text_transform.py")), *remote) as cipher,
            served("serve", str(example("courier.py")), *remote) as courier,
            ModuleClient.connect(courier.address) as client,
        ):
            setup_id = await _store_setups(channel)
            for module_id in ("modules:text-transform", "modules:courier"):
                with step(f"until the registry has {module_id}"):
                    await _registered(channel, module_id)
            await _show_call(client, setup_id, courier)
            await _show_signal(client, channel, setup_id, cipher, courier)
            click.echo(
                "\nStop: SIGTERM to all of them. What is not told yet is sent, what was registered is taken back."
            )
            await courier.stop("courier")
            await cipher.stop("cipher")
        await provider.stop("provider")


async def _store_setups(channel: rpc.Channel) -> str:
    from dk_trio.pb.agentic_mesh_protocol.setup.v1 import (
        CreateSetupRequest,
        SetupServiceStub,
        SetupStatus,
        SetupVersion,
    )
    from dk_trio.pb.google.protobuf import Struct

    async def store(name: str, module_id: str, content: dict[str, Any]) -> str:
        reply = await SetupServiceStub(channel).create_setup(
            CreateSetupRequest(
                name=name,
                organisation_id="organisations:demo",
                owner_id="users:demo",
                module_id=module_id,
                current_setup_version=SetupVersion(version="1", content=Struct.from_dict(content)),
                status=SetupStatus.READY,
            )
        )
        if reply.setup is None:
            raise DemoError(f"the provider has made no setup {name}")
        click.echo(f"  setup {name:<8} {reply.setup.id}  {content}")
        return reply.setup.id

    click.echo("\nStore a setup for each module.")
    cipher = await store("cipher", "modules:text-transform", {"shift": 3})
    return await store("courier", "modules:courier", {"module_id": "modules:text-transform", "setup_id": cipher})


async def _registered(channel: rpc.Channel, module_id: str) -> None:
    import trio
    from grpclib import GRPCError, Status

    from dk_trio.pb.agentic_mesh_protocol.registry.v1 import GetModuleRequest, ModuleStatus, RegistryServiceStub

    while True:
        try:
            found = await RegistryServiceStub(channel).get_module(GetModuleRequest(module_id=module_id))
        except GRPCError as error:
            if error.status is not Status.NOT_FOUND:
                raise
        else:
            if found.status is ModuleStatus.ACTIVE:
                click.echo(f"  the registry has {module_id} at {found.address}:{found.port}")
                return
        await trio.sleep(0.05)


async def _show_call(client: ModuleClient, setup_id: str, courier: Served) -> None:
    import trio

    click.echo(f"\nCall the courier with {TEXT!r}. It finds the cipher in the registry and calls it.")
    started = trio.current_time()
    pages = []
    letter = {"text": TEXT}
    async with client.start(letter, protocol="letter", setup_id=setup_id, mission_id=MISSION) as outputs:
        async for output in outputs:
            root = output["root"]
            if root["protocol"] == "page":
                pages.append(root["text"])
                click.echo(f"  {(trio.current_time() - started) * 1000:7.1f} ms  {root['text']}")
    if len(pages) != len(TEXT.split()):
        raise DemoError(f"the courier should deliver {len(TEXT.split())} words, but delivered {pages}")
    click.echo(f"  courier  | {await courier.log.wait_for('modules:text-transform is at')}")


async def _show_signal(
    client: ModuleClient, channel: rpc.Channel, setup_id: str, cipher: Served, courier: Served
) -> None:
    import trio
    from grpclib import GRPCError, Status

    from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import SendSignalsRequest, Task, TaskManagerServiceStub

    click.echo(f"\nCancel by a signal: the same call; after {CANCEL_AFTER} words the provider is told to cancel it.")
    pages = 0
    sent_at = 0.0
    courier.log.skip()
    cipher.log.skip()
    letter = {"text": TEXT, "pause_s": 1.0}
    try:
        async with client.start(letter, protocol="letter", setup_id=setup_id, mission_id=MISSION) as outputs:
            async for output in outputs:
                pages += output["root"]["protocol"] == "page"
                if pages == CANCEL_AFTER and not sent_at:
                    task = Task(
                        task_id=outputs.job_id,
                        mission_id=MISSION,
                        setup_id=setup_id,
                        setup_version_id="setup_versions:demo",
                        action="cancel",
                        cancellation_reason="none",
                        created_at=datetime.now(UTC),
                    )
                    sent_at = trio.current_time()
                    await TaskManagerServiceStub(channel).send_signals(SendSignalsRequest(tasks=[task]))
    except GRPCError as error:
        if error.status is not Status.CANCELLED:
            raise
        if not sent_at or "cancel signal" not in str(error.message):
            raise DemoError(f"a job was to be cancelled by a signal, and was not: {error.message}") from None
        click.echo(f"  {(trio.current_time() - sent_at) * 1000:7.1f} ms after the signal: CANCELLED, {error.message}")
    else:
        raise DemoError("a job that was cancelled by a signal ended with OK")
    for name, process in (("courier", courier), ("cipher", cipher)):
        for wanted in ("handler cancelled", "cleanup ran"):
            click.echo(f"  {name:<8} | {await process.log.wait_for(wanted)}")
