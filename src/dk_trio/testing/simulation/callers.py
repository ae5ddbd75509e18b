"""The clients of a simulation: hosts with a channel to each server, and jobs that they start, read, leave and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.client import ModuleClient

from .authors import PREFIX, setup_of
from .servers import KEEPALIVE, KEEPALIVE_TIMEOUT, PORT

if TYPE_CHECKING:
    from .scripts import Errand
    from .world import World

STOP_WITHIN: Final = 20.0
"""Seconds that StopModule gets."""


def client_options(*, retries: bool) -> rpc.ChannelOptions:
    """What channels of clients are like."""
    more: dict[str, Any] = {} if retries else {"retry": None}
    return rpc.ChannelOptions(
        keepalive_time=KEEPALIVE,
        keepalive_timeout=KEEPALIVE_TIMEOUT,
        min_ping_interval=10.0,
        stream_window=65_535,
        **more,
    )


class Call:
    """One job from its client's side."""

    def __init__(self, host: ClientHost, errand: Errand) -> None:
        self.errand = errand
        self.over = False
        self._host = host
        self._scope = trio.CancelScope()
        self._outputs = 0
        self._job_id = ""

    @property
    def open(self) -> bool:
        """Whether it has begun and not ended."""
        return self.errand.at <= trio.current_time() and not self.over

    def note(self, event: str, **fields: Any) -> None:
        """Note an event of this job."""
        if not self._host.dead:
            self._host.world.note(f"client/{self._host.name}", event, job=self.errand.job, **fields)

    def leave(self) -> None:
        """Stop reading, which cancels the job."""
        if not self.over:
            self.over = True
            self.note("cancel")
            self._scope.cancel()

    async def run(self) -> None:
        """Do the errand."""
        errand = self.errand
        await trio.sleep_until(errand.at)
        deadline = {} if errand.timeout is None else {"deadline_at": round(trio.current_time() + errand.timeout, 9)}
        self.note("start", server=errand.server, setup=setup_of(errand.server), pause=errand.pause, **deadline)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fate)
            with self._scope:
                await self._read()
            self.over = True
            nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        errand = self.errand
        client = self._host.client(errand.server)
        status, message = "OK", ""
        try:
            async with client.start(
                {"protocol": "play"},
                setup_id=setup_of(errand.server),
                mission_id=PREFIX + errand.job,
                timeout=errand.timeout,
            ) as outputs:
                async for output in outputs:
                    self._job_id = outputs.job_id
                    self._note_output(output.get("root"))
                    if errand.pause:
                        await trio.sleep(errand.pause)
        except GRPCError as error:
            status, message = error.status.name, error.message or ""
        if not self.over:
            self.over = True
            corrupted = self._host.corrupted(errand.server)
            self.note("status", status=status, message=message, on_corrupted=corrupted)

    def _note_output(self, root: Any) -> None:
        told = root if isinstance(root, dict) else {}  # what was changed on the way may be anything
        number = told.get("number")
        numbered = {"number": int(number)} if isinstance(number, float) and number.is_integer() else {}
        run = self._host.world.run_name(self.errand.job, self._job_id)
        more = {} if run == self.errand.job else {"run": run}
        self.note("output", protocol=str(told.get("protocol")), **numbered, **more)

    async def _fate(self) -> None:
        errand = self.errand
        if errand.fate in {"read", "slow"}:
            return
        await trio.sleep(errand.after)
        match errand.fate:
            case "leave":
                self.leave()
            case "stop":
                await self._stop()
            case "ask cancel" | "ask stop":
                await self._host.world.ask(errand.job, errand.fate.removeprefix("ask "))

    async def _stop(self) -> None:
        if not self._job_id:  # it knows no job to stop
            return
        self.note("stop")
        ok = True
        try:
            await self._host.client(self.errand.server).stop(self._job_id, timeout=STOP_WITHIN)
        except GRPCError:
            ok = False
        self.note("stop_reply", ok=ok)


class ClientHost:
    """A host whose programs call modules.

    Attributes:
        world: Where it is.
        name: The host's.
        dead: It was switched off.
        calls: Its jobs.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.calls = [Call(self, errand) for errand in world.script.errands if errand.client == name]
        self.over = trio.Event()
        """All its jobs have ended."""
        self._clients: dict[str, ModuleClient] = {}
        self._streams: dict[str, list[Any]] = {}
        self._scope = trio.CancelScope()
        self._closing = trio.Event()

    def client(self, server: str) -> ModuleClient:
        """Its way to a server."""
        return self._clients[server]

    def corrupted(self, server: str) -> bool:
        """Whether the network has changed anything between it and a server."""
        return any(stream.corrupted for stream in self._streams[server])

    def die(self) -> None:
        """The host is switched off: nobody hears anything of it any more."""
        for call in self.calls:
            if not call.over:
                call.leave()
        self.dead = True
        self.world.network.kill(self.name, how="vanish")
        self._scope.cancel()

    def close(self) -> None:
        """Close its connections."""
        self._closing.set()

    async def live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Do all errands, and keep the channels until `close`."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for server in self.world.script.servers:
                    await nursery.start(self._keep_channel, server)
                task_status.started()
                async with trio.open_nursery() as calls:
                    for call in self.calls:
                        calls.start_soon(call.run)
                self.over.set()
                await self._closing.wait()
                nursery.cancel_scope.cancel()
        self.over.set()

    async def _keep_channel(self, server: str, *, task_status: trio.TaskStatus[None]) -> None:
        streams = self._streams[server] = []

        async def connect() -> trio.abc.Stream:
            stream = await self.world.network.connect(self.name, server)
            streams.append(stream)
            return stream

        options = client_options(retries=self.world.script.retries)
        async with rpc.open_channel(f"{server}:{PORT}", connect=connect, options=options) as channel:
            self._clients[server] = ModuleClient(channel)
            task_status.started()
            await trio.sleep_forever()
