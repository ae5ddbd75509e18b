"""What stands behind the services: this process or a provider of ours, in memory or on a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.provider.kit import provided

from dk_trio import services
from dk_trio.services.channels import ChannelCache
from dk_trio.services.local.platform import LocalPlatform
from dk_trio.services.provider_clients import ProviderClients
from dk_trio.services.stores.database import Database
from dk_trio.services.stores.open import open_database

from .kit import Jobs

_NAMES = {
    "storage": "Storage",
    "cost": "Cost",
    "filesystem": "Filesystem",
    "registry": "Registry",
    "setup": "Setup",
    "user_profile": "UserProfile",
}


def _classes(prefix: str) -> dict[str, type]:
    return {service: getattr(services, prefix + name) for service, name in _NAMES.items()}


@asynccontextmanager
async def local(directory: Path | None) -> AsyncIterator[Jobs]:
    """Jobs of one server in local mode."""
    async with LocalPlatform(directory).opened() as platform:
        yield Jobs(
            remote=False,
            classes=_classes("Default"),
            offered={"platform": platform},
            profiles=platform.profiles,
            database=platform.database,
            forget=platform.registry._registered.clear,
        )


@asynccontextmanager
async def remote(database: Database | None, directory: Path | None) -> AsyncIterator[Jobs]:
    """Jobs of one server in remote mode, and its provider."""
    async with provided(database=database, directory=directory) as it, ChannelCache().opened() as channels:
        clients = ProviderClients(channels, target="provider:1", connect=it.connect)
        async with clients.opened():
            yield Jobs(
                remote=True,
                classes=_classes("Grpc"),
                offered={"providers": clients},
                profiles=it.provider._stores.profiles,
                database=it.provider._stores.database,
            )


@dataclass(frozen=True)
class Backend:
    """Where services are.

    Attributes:
        title: As the page on remote mode has it.
        remote: Whether behind a provider.
        virtual: Whether in virtual time, without files or threads.
        opened: Opens it, with a directory and the URL of a database.
    """

    title: str
    remote: bool
    virtual: bool
    opened: Callable[[Path, str], AbstractAsyncContextManager[Jobs]]
    postgres: bool = False


BACKENDS = {
    "local": Backend("local, in memory", False, True, lambda _, __: local(None)),
    "local_sqlite": Backend("local, SQLite", False, False, lambda path, _: local(path)),
    "remote": Backend("provider, in memory", True, True, lambda _, __: remote(None, None)),
    "remote_sqlite": Backend(
        "provider, SQLite", True, False, lambda path, _: remote(open_database("sqlite", directory=path), path)
    ),
    "remote_postgres": Backend(
        "provider, PostgreSQL",
        True,
        False,
        lambda path, url: remote(open_database(url, directory=path), path),
        postgres=True,
    ),
}
