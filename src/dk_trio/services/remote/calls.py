"""Calls of one service of the provider: what a remote strategy sends, and how its failures come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from dk_trio import rpc
from dk_trio.errors import Violation
from dk_trio.pb import DecodeError
from dk_trio.pb._encode_errors import FieldValueError
from dk_trio.services.client_config import parse_client_config

from .errors import ErrorFamily, made, service_error

if TYPE_CHECKING:
    from dk_trio.services.provider_clients import ProviderClients
    from dk_trio.services.query import ProviderQuery

M = TypeVar("M")

HEALTH_TIMEOUT: Final = 5.0
"""Seconds in which a provider that works answers a cheap read, whoever else asks."""


class Calls:
    """The methods of one service, by name.

    Args:
        providers: Where calls go to.
        client_config: Another provider than the server's own; see `ProviderClients.query`.
        service: Full name of the service, such as `agentic_mesh_protocol.cost.v1.CostService`.
        family: Its errors.
    """

    def __init__(self, providers: ProviderClients, client_config: Any, service: str, family: ErrorFamily) -> None:
        self._providers = providers
        if client_config is not None:
            # What is wrong with it shows when the strategy is made.
            parse_client_config(client_config, defaults=rpc.ChannelOptions())
        self._client_config = client_config
        self._service = service
        self._name = service.rpartition(".")[2]
        self._family = family

    def __repr__(self) -> str:
        return f"<Calls of {self._name}>"

    @property
    def target(self) -> str:
        """Where the provider is."""
        return self._query.breaker.target

    @cached_property
    def _query(self) -> ProviderQuery:
        # When it is first used: a strategy may be made before its server is open.
        return self._providers.query(self._client_config)

    async def honours(self, extension: str) -> bool:
        """Whether the provider has said that it honours an extension, see `dk_trio.extensions`. It is asked once."""
        return extension in (self._query.honours or await self._query.ask(timeout=HEALTH_TIMEOUT))

    async def read(
        self,
        method: str,
        request: Any,
        reply_type: type[M],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> M:
        """Call a method that changes nothing.

        Raises:
            DkTrioError: One of the family.
        """
        with self.errors(method):
            route = f"/{self._service}/{method}"
            return await self._query.read(route, request, reply_type, timeout=timeout, metadata=metadata)

    async def write(
        self, method: str, request: Any, reply_type: type[M], *, metadata: Mapping[str, str | bytes] | None = None
    ) -> M:
        """Call a method that changes something: once, however often the call has to be tried.

        Raises:
            DkTrioError: One of the family.
        """
        with self.errors(method):
            return await self._query.write(f"/{self._service}/{method}", request, reply_type, metadata=metadata)

    @contextmanager
    def errors(self, method: str) -> Iterator[None]:
        """Failures of the call in the block, and of reading its reply, as errors of the service."""
        try:
            yield
        except GRPCError as error:
            call = f"{self._name}/{method}"
            raise service_error(error, self._family, call=call, target=self.target) from error
        except DecodeError as error:
            raise self.broken(method, f"a reply that cannot be read: {error}") from error
        except FieldValueError as error:
            # Of the right type, and not to be sent: a text with half a character, a number that does not fit.
            where, _, rule = str(error).partition(": ")
            text = f"{self._name}/{method} was not called: {error}."
            violations = [Violation(where.partition(".")[2], rule)]
            raise made(self._family.base, text, status=Status.INVALID_ARGUMENT, violations=violations) from error
        except trio.ClosedResourceError as error:
            text = f"{self._name}/{method} was not called: this server is shutting down."
            raise made(self._family.base, text, status=Status.UNAVAILABLE) from error

    def broken(self, method: str, what: str) -> Exception:
        """The error for a reply that is none."""
        text = f"The services-provider at {self.target} answered {self._name}/{method} with {what}."
        return made(self._family.base, text, status=Status.INTERNAL)

    def refused(self, method: str) -> Exception:
        """The error for a reply that says `success: false`, where a provider gives no reason."""
        text = f"The services-provider at {self.target} answered {self._name}/{method} with success=false."
        return made(self._family.base, text, status=Status.UNKNOWN)
