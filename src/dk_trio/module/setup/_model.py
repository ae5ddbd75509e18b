"""`SetupModel`: the configuration of a module for one use of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, Field

from dk_trio.module.tools.build import build_tool_cache
from dk_trio.module.tools.models import ToolModuleInfo
from dk_trio.module.tools.resolve import TIMEOUT

from ._clean import clean_model, derived, dropped_fields
from ._dynamic import DEFAULT_FETCH_TIMEOUT, Dynamic, ResolveResult, marking
from ._template import Fetches, fill, template_of

if TYPE_CHECKING:
    from dk_trio.module.tools.cache import ToolCache
    from dk_trio.services.communication import Communication, Metadata
    from dk_trio.services.registry import Registry


class SetupModel(BaseModel):
    """The configuration of a module for one use of it. Unknown keys in stored setups are ignored.

    Fields are of three kinds:

    - `Field(json_schema_extra={"config": True})`: in the form only. `run_config_setup` copies what jobs need of them.
    - `Field(json_schema_extra={"ui:widget": "hidden"})`: in jobs only.
    - others: in both.

    Attributes:
        resolved_tools: The tools that the setup has selected, by the id of their setup; filled in by ConfigSetupModule.
    """

    resolved_tools: dict[str, ToolModuleInfo] = Field(
        default_factory=dict, json_schema_extra={"ui:widget": "hidden"}, repr=False
    )

    __resolved__: ClassVar[Mapping[Dynamic, ResolveResult]] = {}

    @classmethod
    async def get_clean_model(
        cls,
        *,
        config_fields: bool,
        hidden_fields: bool,
        force: bool = False,
        fetch_timeout: float = DEFAULT_FETCH_TIMEOUT,
    ) -> type[Self]:
        """This class without the fields that one side must not see: a subclass of it, or itself when all are seen.

        The form has config fields and no hidden ones, a job has hidden fields and no config ones; a field that is both
        is kept only where both are. Methods, properties and validators are the author's; one that reads a dropped
        field gets an AttributeError that says so, and a validator of the whole model that does is skipped.

        Args:
            config_fields: Keep config fields.
            hidden_fields: Keep hidden fields.
            force: Run the fetchers of `Dynamic` fields now. The class is then a new one each time, whose
                `model_json_schema` has their values. A fetcher that fails leaves its keyword as it was, and
                `x-dynamic-errors` beside it names the cause. Without it the class is the same each time.
            fetch_timeout: Seconds for one fetcher, where its field says none.

        Raises:
            ModuleDefinitionError: A field has no JSON schema.
            trio.Cancelled: A surrounding scope was cancelled; the fetchers are cancelled with it.
        """
        clean = clean_model(cls, config_fields=config_fields, hidden_fields=hidden_fields)
        if not force:
            return clean
        template = template_of(clean)
        if not template.markers:
            return clean
        results, _ = await Fetches(fetch_timeout).of(template)
        origin = clean_model(cls, config_fields=True, hidden_fields=True)
        dropped = dropped_fields(origin, config_fields=config_fields, hidden_fields=hidden_fields)
        return derived(origin, dropped, (config_fields, hidden_fields), __resolved__=results)

    async def build_tool_cache(
        self,
        registry: Registry | None = None,
        communication: Communication | None = None,
        *,
        timeout: float = TIMEOUT,
        metadata: Metadata | None = None,
    ) -> ToolCache:
        """The tools that this setup selects, see `dk_trio.module.tools.build_tool_cache`.

        What `resolved_tools` has is taken from there, what is missing is asked for and put there.

        Args:
            registry: Where setups and modules are found.
            communication: Asks the modules for their schemas.
            timeout: Seconds for each tool.
            metadata: Sent with each call of a module.
        """
        return await build_tool_cache(self, registry, communication, timeout=timeout, metadata=metadata)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As pydantic's; of a class from `get_clean_model(force=True)` with the values of its `Dynamic` fields."""
        if not cls.__resolved__:
            return super().model_json_schema(*args, **kwargs)
        with marking():
            return fill(super().model_json_schema(*args, **kwargs), cls.__resolved__)
