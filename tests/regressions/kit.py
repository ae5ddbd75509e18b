"""A served module and its callers, in memory and in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests.module.remote_kit import MODULE_ID, REMOTE
from tests.module.sample import Message, module_with
from tests.module.service_kit import Source, settings_of

from dk_trio import ModuleClient, ModuleServer
from dk_trio.module import ModuleContext
from dk_trio.testing import MemoryServer, serve_in_memory
from dk_trio.testing.provider import FakeProvider

# Nothing in virtual time takes longer. A deadlock ends here instead of never, and soon: a server with a provider polls.
LIMIT = 3600


@asynccontextmanager
async def serving(
    handle: Any, *, provider: FakeProvider | None = None, setups: Any = None, variables: Any = None, **hooks: Any
) -> AsyncIterator[MemoryServer]:
    """Serve a module with this handler; at the end nothing may be left of any job.

    Args:
        handle: Of the only trigger.
        provider: Who gets the signals; none in local mode.
        setups: Where setups come from.
        variables: Of the environment, without `DIGITALKIN_`.
        hooks: Of the module class.
    """
    settings = settings_of(**(variables or {}))
    if provider is not None:
        settings = replace(settings, services=REMOTE.services, server=REMOTE.server)
    module = module_with(handle, metadata={"module_id": MODULE_ID, "version": "1.2"}, **hooks)
    setups = setups or (None if provider is None else Source())
    with trio.fail_after(LIMIT):
        async with serve_in_memory(module, settings=settings, provider=provider, setups=setups) as memory:
            yield memory
            await trio.sleep(60)  # for what remains to be done when a caller has gone
            assert_idle(memory.server)


def assert_idle(server: ModuleServer) -> None:
    """No job, and all of the capacity is there."""
    now = server.statistics()
    assert (now.jobs.running, now.jobs.queued) == (0, 0)
    assert (now.admission.running, now.admission.admitted, now.admission.queued) == (0, 0, 0)


@dataclass
class Call:
    """One StartModule, as its caller sees it."""

    job_id: str = ""
    protocols: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """Of the module's own messages."""
    status: Status | None = None
    """None: it has not ended, or the caller has left."""
    message: str = ""
    failure: Any = None
    ended_at: float = 0.0
    begun: trio.Event = field(default_factory=trio.Event)
    """With the module's first message, or the end."""
    ended: trio.Event = field(default_factory=trio.Event)
    caller: trio.CancelScope = field(default_factory=trio.CancelScope)
    """To leave."""

    @property
    def whole(self) -> bool:
        """Whether it ended well, from the first message to the last."""
        return self.status is Status.OK and self.protocols[0 :: max(1, len(self.protocols) - 1)] == [
            "module_start_info",
            "end_of_stream",
        ]

    async def run(self, client: ModuleClient, pause: float, root: dict[str, Any], arguments: dict[str, Any]) -> None:
        try:
            with self.caller:
                async with client.start({"protocol": "message", **root}, **arguments) as outputs:
                    try:
                        async for output in outputs:
                            self.job_id = outputs.job_id
                            self._note(output["root"])
                            if pause and len(self.counts) == 1:
                                await trio.sleep(pause)
                                pause = 0
                        self.status = Status.OK
                    finally:
                        self.failure = outputs.failure
        except GRPCError as error:
            self.status, self.message = error.status, str(error.message)
        finally:
            self.ended_at = trio.current_time()
            self.begun.set()
            self.ended.set()

    def _note(self, root: dict[str, Any]) -> None:
        self.protocols.append(root["protocol"])
        if root["protocol"] == "message":
            self.counts.append(int(root["count"]))
            self.begun.set()


async def call(client: ModuleClient, *, pause: float = 0, timeout: float | None = None, **root: Any) -> Call:
    """Run a job to its end; `pause` seconds go by after the first message of the module."""
    made = Call()
    await made.run(client, pause, root, {"timeout": timeout})
    return made


async def begin(
    nursery: trio.Nursery, client: ModuleClient, *, pause: float = 0, timeout: float | None = None, **root: Any
) -> Call:
    """Start a job; it has sent its first message when this returns, or has ended."""
    made = Call()
    nursery.start_soon(made.run, client, pause, root, {"timeout": timeout})
    await made.begun.wait()
    return made


async def count_up(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
    """Send as many messages as the input says, each of them as large as its text."""
    for number in range(data.count):
        await context.send(Message(count=number, text=data.text))


async def tick(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
    """Send ten messages a second, as many as the input says."""
    for number in range(data.count):
        await context.send(Message(count=number))
        await trio.sleep(0.1)


async def wait(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
    """Send one message, and go on for ever."""
    await context.send(Message())
    await trio.sleep_forever()


async def answer(self: Any, data: Message, setup: Any, context: ModuleContext) -> None:
    """Send one message."""
    await context.send(Message())
