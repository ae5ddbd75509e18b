"""Jobs on a backend, and the decorators of behaviours."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dk_trio.services.cost import Cost
from dk_trio.services.filesystem import Filesystem
from dk_trio.services.registry import Registry
from dk_trio.services.setup import SetupService
from dk_trio.services.storage import Storage
from dk_trio.services.stores.work import Statement, Work
from dk_trio.services.user_profile import UserProfile

from . import SERVICES


@dataclass(kw_only=True)
class Jobs:
    """Services of jobs, all on one backend.

    Attributes:
        remote: Whether they are behind a provider.
        classes: The strategies by service.
        offered: What their constructors are given besides the parameters.
        profiles: Where profiles are put: behind the service, as an operator does.
        database: Where all is kept that is not in memory.
        forget: Empties what is in memory all the same.
    """

    remote: bool
    classes: Mapping[str, type]
    offered: Mapping[str, Any]
    profiles: Any
    database: Any
    forget: Callable[[], object] = lambda: None

    async def empty(self) -> None:
        """As if nothing had been stored yet."""
        schemas = [statement for statements in self.database._schemas.values() for statement in statements]
        tables = [match[1] for statement in schemas if (match := re.match(r"CREATE TABLE (\w+)", statement))]

        def work() -> Work[None]:
            for table in reversed(tables):  # what refers to others was declared after them
                yield Statement(f"DELETE FROM {table}")

        await self.database.write(work)
        self.forget()

    def make(self, service: str, mission: str, setup: str, version: str, /, **options: Any) -> Any:
        """A strategy of one job."""
        return self.classes[service](mission, setup, version, **self.offered, **options)

    def storage(self, mission: str = "missions:m", version: str = "setup_versions:v", **options: Any) -> Storage:
        from .storage import CONFIG

        return self.make("storage", mission, "setups:s", version, **{"config": CONFIG, **options})

    def cost(self, mission: str = "missions:m", version: str = "setup_versions:v", **options: Any) -> Cost:
        from .cost import CONFIG

        return self.make("cost", mission, "setups:s", version, **{"config": CONFIG, **options})

    def files(self, mission: str = "missions:m", setup: str = "setups:s", **options: Any) -> Filesystem:
        return self.make("filesystem", mission, setup, "setup_versions:v", **options)

    def registry(self, **options: Any) -> Registry:
        return self.make("registry", "missions:m", "setups:s", "setup_versions:v", **options)

    def setups(self) -> SetupService:
        return self.make("setup", "", "", "")

    def profile(self, mission: str = "missions:m") -> UserProfile:
        return self.make("user_profile", mission, "setups:s", "setup_versions:v")


Behaviour = Callable[..., Awaitable[None]]

LOCAL, REMOTE = "local", "remote"


def only(side: str, why: str) -> Callable[[Behaviour], Behaviour]:
    """The behaviour is that of one side: `why` says what is different, and what on the other side is so instead."""

    def mark(behaviour: Behaviour) -> Behaviour:
        behaviour.only, behaviour.why = side, why  # type: ignore[attr-defined]
        return behaviour

    return mark


def cases(*rows: tuple[Any, ...]) -> Callable[[Behaviour], Behaviour]:
    """The behaviour is one for each row, which follows `jobs` in its arguments."""

    def mark(behaviour: Behaviour) -> Behaviour:
        behaviour.cases = rows  # type: ignore[attr-defined]
        return behaviour

    return mark


def real_files(behaviour: Behaviour) -> Behaviour:
    """The behaviour reads files in threads, which virtual time does not know."""
    behaviour.real = True  # type: ignore[attr-defined]
    return behaviour


@dataclass(frozen=True)
class Check:
    """One behaviour, with its arguments.

    Attributes:
        service: Of `SERVICES`.
        name: Unique.
    """

    service: str
    name: str
    behaviour: Behaviour
    arguments: tuple[Any, ...] = ()

    @property
    def only(self) -> str:
        return getattr(self.behaviour, "only", "")

    @property
    def why(self) -> str:
        return getattr(self.behaviour, "why", "")

    def holds_for(self, *, remote: bool, virtual: bool) -> bool:
        """Whether it is one of a backend."""
        if virtual and getattr(self.behaviour, "real", False):
            return False
        return not self.only or (self.only == REMOTE) is remote


def checks() -> Iterator[Check]:
    """All, in the order of the files."""
    for service in SERVICES:
        for name, behaviour in vars(import_module(f"{__package__}.{service}")).items():
            if not name.startswith("test_"):
                continue
            rows = getattr(behaviour, "cases", None)
            if rows is None:
                yield Check(service, name.removeprefix("test_"), behaviour)
                continue
            for number, row in enumerate(rows):
                yield Check(service, f"{name.removeprefix('test_')}[{number}]", behaviour, row)
