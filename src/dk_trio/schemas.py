"""The schema documents of a served module, as the seven schema RPCs answer them (reference, 2.6 and 3.4)."""

from __future__ import annotations

from typing import Any

import trio

from dk_trio.errors import NoSchemaError
from dk_trio.module import ModuleDefinition
from dk_trio.module._formats import is_model
from dk_trio.module._utility import UTILITY_INPUTS, UTILITY_OUTPUTS
from dk_trio.module.schema import (
    SchemaCache,
    config_setup_document,
    cost_document,
    input_document,
    output_document,
    secret_document,
    select_document,
    setup_document,
)
from dk_trio.services.config import ServicesConfig


class ModuleSchemas:
    """Makes the documents of one module, each once, or as often as what is fetched for them wants it.

    With `llm` a document is `{"json_schema": ...}` without references, for forms with a `ui_schema` beside it.

    Args:
        definition: The module.
        services: Its services; the cost service's parameters hold the prices.
        fetch_timeout: Seconds for one fetcher of a dynamic field.
        threads: Limits the threads of all fetchers; None: each has a limit of its own.
    """

    def __init__(
        self,
        definition: ModuleDefinition,
        services: ServicesConfig | None,
        *,
        fetch_timeout: float,
        threads: trio.CapacityLimiter | None = None,
    ) -> None:
        self._definition = definition
        self._services = services or ServicesConfig()
        self._cache = SchemaCache(fetch_timeout, threads)

    def __repr__(self) -> str:
        return f"<ModuleSchemas of {self._definition.name}, {self._cache!r}>"

    def input(self, *, llm: bool) -> dict[str, Any]:
        """What the module takes, the health checks and `cost_limits` included."""
        from dk_trio.services.cost import CostLimit

        limit: Any = CostLimit  # a union of models
        model = self._definition.input_model
        return self._cache.static(
            ("input", llm), lambda: input_document(model, UTILITY_INPUTS, cost_limit=limit, llm=llm)
        )

    def output(self, *, llm: bool) -> dict[str, Any]:
        """What the module sends, with the messages that every stream has.

        Raises:
            NoSchemaError: The module names no output format.
        """
        model = self._definition.cls.output_format
        if not is_model(model):
            raise NoSchemaError(f"{self._definition.name} names no output format.")
        return self._cache.static(("output", llm), lambda: output_document(model, UTILITY_OUTPUTS, llm=llm))

    async def setup(self, *, llm: bool) -> dict[str, Any]:
        """What jobs run with. Its fetchers are called, each within its deadline."""
        model, fetches = self._definition.cls.setup_format, self._cache.fetches
        return await self._cache.get(("setup", llm), lambda: setup_document(model, fetches=fetches, llm=llm))

    async def config_setup(self, *, llm: bool) -> dict[str, Any]:
        """The form. Its fetchers are called, each within its deadline."""
        model, fetches = self._definition.cls.setup_format, self._cache.fetches
        return await self._cache.get(("config", llm), lambda: config_setup_document(model, fetches=fetches, llm=llm))

    def secret(self, *, llm: bool) -> dict[str, Any]:
        """The form for the module's secrets.

        Raises:
            NoSchemaError: The module names no secret format.
        """
        model = self._definition.cls.secret_format
        if not is_model(model):
            raise NoSchemaError(f"{self._definition.name} names no secret format.")
        return self._cache.static(("secret", llm), lambda: secret_document(model, llm=llm))

    def cost(self, *, llm: bool) -> dict[str, Any]:
        """What the module charges; empty when it charges nothing."""
        return self._cache.static(
            ("cost", llm), lambda: _named(cost_document(self._services.params("cost").get("config"), llm=llm), llm=llm)
        )

    def select(self) -> dict[str, Any]:
        """The form for the selection of triggers; empty when the module has switched it off."""
        cls = self._definition.cls
        protocols = {
            protocol: next((handler.description for handler in handlers if handler.description), protocol)
            for protocol, handlers in self._definition.triggers.items()
        }
        return self._cache.static("select", lambda: select_document(cls.select_format, protocols))


def _named(document: dict[str, Any], *, llm: bool) -> dict[str, Any]:
    """Each price under the keys that callers know: `name` and `type`, not those of the model."""
    costs = document["json_schema"]["costs"] if llm else document
    for cost in costs.values():
        for long, short in (("cost_name", "name"), ("cost_type", "type")):
            if long in cost:
                cost[short] = cost.pop(long)
    return document
