"""A module class, checked once: everything that could only fail later is found here, when the server starts.

`ModuleDefinition.of(cls)` works out the input model, the trigger table and the shapes of the hooks. A session then
does no introspection of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from pydantic import BaseModel, ValidationError, create_model

from dk_trio.errors import InvalidInputError, InvalidSetupError, ModuleDefinitionError, UnknownProtocolError

from ._base import TrioModule
from ._formats import is_model, protocols, roots
from ._models import DataModel
from ._schema import schema_with_system_outputs
from ._trigger import TriggerHandler
from ._validation import explain

_PUBLISHED_AS_TEXT = 10  # protocols named in an error message; a message is one paragraph


@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleDefinition:
    """A served module: its class and all that follows from it.

    Attributes:
        id: Module id, from `DIGITALKIN_MODULE_ID` or the class's metadata.
        protocols: The protocols that an input may have; empty when `run` is overridden and the root has no `Literal`.
    """

    cls: type[TrioModule[Any, Any, Any, Any]]
    id: str
    name: str
    input_model: type[BaseModel]
    triggers: Mapping[str, type[TriggerHandler[Any, Any, Any]]]
    protocols: tuple[str, ...]
    run_takes_context: bool
    cleanup_takes_context: bool

    @classmethod
    def of(cls, module: Any, *, module_id: str | None = None) -> ModuleDefinition:
        """Check a module class.

        Args:
            module: The class to serve.
            module_id: Identity in place of the one in the class's metadata.

        Raises:
            ModuleDefinitionError: Names what is missing and how to add it.
        """
        if not (isinstance(module, type) and issubclass(module, TrioModule)):
            raise ModuleDefinitionError(f"{module!r} is not a module class.", hint="Derive it from dk_trio.TrioModule.")
        triggers = module.triggers()
        own_run = module.run is not TrioModule.run
        if not triggers and not own_run:
            raise ModuleDefinitionError(
                f"{module.__name__} has no triggers and no run method of its own, so it can do nothing.",
                hint=f"Register a handler with @{module.__name__}.register, or override run().",
            )
        for hook in ("initialize", "run", "cleanup", "run_config_setup"):
            if not inspect.iscoroutinefunction(inspect.unwrap(getattr(module, hook))):
                raise ModuleDefinitionError(
                    f"{module.__name__}.{hook} is not async.", hint=f"Write it as `async def {hook}(...)`."
                )
        if not is_model(module.setup_format):
            raise ModuleDefinitionError(
                f"{module.__name__}.setup_format is {module.setup_format!r}, which is not a model class.",
                hint="Give a class that derives from SetupModel.",
            )
        input_model = _input_model(module, triggers)
        literals = (name for root in roots(input_model) for name in protocols(root))
        return cls(
            cls=module,
            id=module_id or module.get_module_id(),
            name=module.name or module.__name__,
            input_model=input_model,
            triggers=triggers,
            protocols=tuple(literals if own_run else triggers),
            run_takes_context=_arguments(module.run) > 2,
            cleanup_takes_context=_arguments(module.cleanup) > 0,
        )

    def parse_input(self, data: Mapping[str, Any]) -> Any:
        """The input as the module's model.

        Args:
            data: `{"root": {"protocol": ..., ...}, "annotations": {...}}`. The protocol may be left out when the module
                has only one.

        Raises:
            UnknownProtocolError: Names the value and the protocols that exist.
            InvalidInputError: Names each field that does not fit, and why.
        """
        root = data.get("root")
        if not isinstance(root, dict):
            found = f"root is {root!r}" if "root" in data else f"the keys are {sorted(data)}"
            raise InvalidInputError(
                f"The input has no root object: {found}.",
                hint='Send {"root": {"protocol": ..., ...}}.',
            )
        known = self.protocols
        if known:
            protocol = root.get("protocol")
            if protocol is None and len(known) == 1:
                data = {**data, "root": {**root, "protocol": known[0]}}
            elif protocol not in known:
                what = "root.protocol is missing" if protocol is None else f"Unknown protocol {protocol!r}"
                raise UnknownProtocolError(f"{what}; {self.name} knows {_listing(known)}.")
        try:
            return self.input_model.model_validate(data)
        except ValidationError as error:
            raise InvalidInputError(f"The input does not fit {self.name}: {explain(error)}.") from None

    def parse_setup(self, content: Mapping[str, Any], *, setup_id: str) -> Any:
        """The content of a setup as the module's setup model; a new object each time, so that no job sees another's.

        Raises:
            InvalidSetupError: Names each field that does not fit, and why.
        """
        try:
            return self.cls.setup_format.model_validate(_copied(content))
        except ValidationError as error:
            raise InvalidSetupError(f"Setup {setup_id!r} does not fit {self.name}: {explain(error)}.") from None

    @functools.cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON schema of the inputs."""
        return self.input_model.model_json_schema()

    @functools.cached_property
    def output_schema(self) -> dict[str, Any] | None:
        """JSON schema of the outputs and of the messages that every stream has; None when no output format is given."""
        model = self.cls.output_format
        return schema_with_system_outputs(model) if is_model(model) else None


def _input_model(
    module: type[TrioModule[Any, Any, Any, Any]], triggers: Mapping[str, type[TriggerHandler[Any, Any, Any]]]
) -> type[BaseModel]:
    """The module's input format, or a union of what its handlers take."""
    given = module.input_format
    if is_model(given):
        if not issubclass(given, DataModel) and "root" not in given.model_fields:
            raise ModuleDefinitionError(
                f"The input format {given.__name__} of {module.__name__} has no root.",
                hint=f"Derive it from DataModel: class {given.__name__}(DataModel[...]).",
            )
        known = {name for root in roots(given.model_fields["root"].annotation) for name in protocols(root)}
        for protocol, handler in triggers.items():
            if protocol not in known:
                raise ModuleDefinitionError(
                    f"{handler.__qualname__} handles protocol {protocol!r}, but no root of {given.__name__} has it "
                    f"(they have {_listing(sorted(known)) or 'no Literal protocol at all'}).",
                    hint=f'Add a trigger class with protocol: Literal["{protocol}"] = "{protocol}" to its root.',
                )
        return given
    members = []
    for protocol, handler in triggers.items():
        member = next((root for root in roots(handler.input_format) if protocol in protocols(root)), None)
        if member is None:
            raise ModuleDefinitionError(
                f"Protocol {protocol!r} of {module.__name__} has no input type.",
                hint=f"Name an input format in {module.__name__}'s type arguments, or give {handler.__qualname__} an "
                f'input_format whose protocol is Literal["{protocol}"].',
            )
        members.append(member)
    if not members:
        raise ModuleDefinitionError(
            f"{module.__name__} has no input format.",
            hint=f"Write class {module.__name__}(TrioModule[MyInput, MyOutput, MySetup]), or set input_format.",
        )
    union: Any = Union[tuple(members)]  # noqa: UP007 - the members are known at run time only
    return create_model(f"{module.__name__}Input", __base__=DataModel[union])


def _copied(value: Any) -> Any:
    """JSON values that share nothing with these: where a field says `Any`, pydantic keeps the very object it was given.

    Not `copy.deepcopy`: it costs more, and the values here are of three kinds.
    """
    if isinstance(value, list):
        return [_copied(item) if isinstance(item, (dict, list)) else item for item in value]
    return {key: _copied(item) if isinstance(item, (dict, list)) else item for key, item in value.items()}


def _arguments(hook: Any) -> int:
    """How many positional arguments a method takes besides self."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in inspect.signature(hook).parameters.values()) - 1


def _listing(names: Any) -> str:
    names = list(names)
    shown = ", ".join(names[:_PUBLISHED_AS_TEXT])
    return f"{shown} and {len(names) - _PUBLISHED_AS_TEXT} more" if len(names) > _PUBLISHED_AS_TEXT else shown
