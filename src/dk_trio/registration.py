"""A served module in the registry: registered, kept there by heartbeats, registered again when it was forgotten.

The registry is somebody else's process. It may not be there when a server starts, may be restarted, may lose what it
knew: none of that ends a server or a job. `run` goes on until it is cancelled, and tells the log what changes, once.

A registration is a lease: a server that dies is not found any more when its heartbeats have been missing for a while.
One that stops says so with `withdraw`, so that nobody is sent to it in between.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import trio

from dk_trio import chance
from dk_trio.boundary import unwrapped
from dk_trio.errors import DkTrioError, RegistryModuleNotFoundError
from dk_trio.services.registry import Registry

_log = logging.getLogger("dk_trio.registration")

FIRST_PAUSE: Final = 0.5
"""Seconds before the second attempt to register. Each further one doubles it, up to the interval of heartbeats: a
provider that comes up a moment later is found at once, and one that is away for long is not asked more than usual."""

JITTER: Final = 0.2
"""Pauses are multiplied by 1 - this to 1 + this: a thousand servers that were started together do not ask together."""

WITHDRAW_WITHIN: Final = 2.0
"""Seconds for the last word to the registry, while jobs drain: without it the lease runs out by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationStatus:
    """Where a registration stands.

    Attributes:
        registered: Whether the registry knows the module, as far as was told last.
        trouble: Why the last call to the registry failed; empty when it did not.
        since: When this began, on Trio's clock.
        registrations: How often the module was registered.
        heartbeats: How many heartbeats were answered.
    """

    registered: bool
    trouble: str
    since: float
    registrations: int
    heartbeats: int


class Registration:
    """Keeps one module known.

    Args:
        registry: Where.
        module_id: The module.
        address: Host name or address under which others reach it.
        port: Its port.
        version: Of the module.
        interval: Seconds between two heartbeats.
        connects: Returns when there is a connection to the registry after there was none: a better reason to ask again
            than any pause.
        on_change: Called when the status has changed in more than its numbers. Must not wait.
        random: For the jitter.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        module_id: str,
        address: str,
        port: int,
        version: str,
        interval: float,
        connects: Callable[[], Awaitable[None]] = trio.sleep_forever,
        on_change: Callable[[RegistrationStatus], object] = lambda _: None,
        random: Random | None = None,
    ) -> None:
        self._registry = registry
        self._module_id = module_id
        self._address = address
        self._port = port
        self._version = version
        self._interval = interval
        self._connects = connects
        self._on_change = on_change
        self._random = random or chance.new_random()
        self._registered = self._registering = False
        self._speaking = trio.CancelScope()
        self._silent = trio.Event()
        self._trouble = ""
        self._since = trio.current_time()
        self._registrations = self._heartbeats = 0

    def __repr__(self) -> str:
        state = "registered" if self._registered else f"not registered: {self._trouble or 'not tried yet'}"
        return f"<Registration of {self._module_id} at {self._address}:{self._port}, {state}>"

    def status(self) -> RegistrationStatus:
        """Where it stands."""
        return RegistrationStatus(
            registered=self._registered,
            trouble=self._trouble,
            since=self._since,
            registrations=self._registrations,
            heartbeats=self._heartbeats,
        )

    async def run(self) -> None:
        """Register, then keep it so, until cancelled or withdrawn."""
        try:
            with self._speaking:
                await self._keep()
        finally:
            self._silent.set()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await (self._beat() if self._registered else self._register())
            except RegistryModuleNotFoundError as error:
                if self._registered:
                    _log.warning("the registry has forgotten %s: registering it again", self._module_id)
                    self._change(registered=False, trouble=error.message)
                    continue
                self._failed(error)  # a registry that only takes modules which it was told of before
            except DkTrioError as error:
                self._failed(error)
            else:
                pause = FIRST_PAUSE
                await self._pause(self._interval)
                continue
            pause = min(pause, self._interval)
            with trio.move_on_after(self._about(pause)) as rest:
                async with unwrapped(), trio.open_nursery() as nursery:
                    nursery.start_soon(self._connects)  # from now on: a connection of the first moment counts as well
                    await self._pause(min(pause, FIRST_PAUSE))  # also with one that is lost again and again
            pause = pause * 2 if rest.cancelled_caught else FIRST_PAUSE

    async def withdraw(self) -> None:
        """Tell the registry that the module is no longer served here. Tries once, for a bounded time; never raises.

        It is the last word: `run` ends, and what it was just saying ends before. A registration that was under way may
        have been taken, so it is taken back.
        """
        self._speaking.cancel()
        if not (self._registered or self._registering):
            return
        self._registering = False
        self._change(registered=False, trouble="withdrawn")
        with trio.move_on_after(WITHDRAW_WITHIN) as scope:
            await self._silent.wait()
            if self._registered:  # its answer came with the end
                self._change(registered=False, trouble="withdrawn")
            try:
                if not await self._registry.deregister(self._module_id):
                    _log.info("the registry finds %s until its lease has run out", self._module_id)
            except DkTrioError as error:
                _log.warning("%s could not be deregistered: %s", self._module_id, error.text)
        if scope.cancelled_caught:
            _log.warning("%s could not be deregistered within %g s", self._module_id, WITHDRAW_WITHIN)

    async def _register(self) -> None:
        self._registering = True
        try:
            await self._registry.register(self._module_id, self._address, self._port, self._version)
        except DkTrioError:
            self._registering = False
            raise
        self._registering = False
        self._registrations += 1
        _log.info("registered %s at %s:%d", self._module_id, self._address, self._port)
        self._change(registered=True)

    async def _beat(self) -> None:
        await self._registry.heartbeat(self._module_id)
        self._heartbeats += 1
        if self._trouble:
            _log.info("the registry answers again; %s was registered all the time", self._module_id)
            self._change(registered=True)

    def _failed(self, error: DkTrioError) -> None:
        if not self._trouble:
            what = "heartbeats of" if self._registered else "registering"
            _log.warning("%s %s failed, it is tried again: %s", what, self._module_id, error.text)
        if self._trouble != error.message:
            self._change(registered=self._registered, trouble=error.message)

    def _change(self, *, registered: bool, trouble: str = "") -> None:
        if (registered, bool(trouble)) != (self._registered, bool(self._trouble)):
            self._since = trio.current_time()
        self._registered = registered
        self._trouble = trouble
        self._on_change(self.status())

    async def _pause(self, seconds: float) -> None:
        await trio.sleep(self._about(seconds))

    def _about(self, seconds: float) -> float:
        return max(0.0, seconds) * self._random.uniform(1 - JITTER, 1 + JITTER)
