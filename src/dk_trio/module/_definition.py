"""A module class, checked once: everything that could only fail later is found here, when the server starts.

`ModuleDefinition.of(cls)` works out the input model, the trigger table and the shapes of the hooks. A session then
does no introspection of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from dk_trio.errors import (
    InvalidInputError,
    InvalidSetupError,
    ModuleDefinitionError,
    UnknownProtocolError,
    Violation,
)

from ._base import TrioModule, module_classes
from ._formats import is_model, shown, type_arguments, where
from ._models import DataModel, DataTrigger
from ._routing import Roots, Triggers, check_output, check_routes, input_model, roots_by_protocol
from ._trigger import TriggerHandler, callable_with, check_made, takes_self
from ._validation import brief, explain, rows_of, rows_of_root, violations_of
from .setup import SetupModel, clean_model
from .tools import may_select

_PUBLISHED_AS_TEXT = 10  # protocols named in an error message; a message is one paragraph

# Hook -> what it may be called with, the longest first.
_HOOKS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "initialize": (("context", "setup_data"),),
    "run": (("input_data", "setup_data", "context"), ("input_data", "setup_data")),
    "cleanup": (("context",), ()),
    "run_config_setup": (("context", "config_setup_data"),),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleDefinition:
    """A served module: its class and all that follows from it.

    Attributes:
        id: Module id, from `DIGITALKIN_MODULE_ID` or the class's metadata.
        triggers: The handlers by protocol.
        roots: Protocol -> the types that a root of this protocol may have.
        setup_model: What jobs run with: the setup format without the fields that only its form has.
        selects_tools: Whether a setup may select tools.
        protocols: The protocols that an input may have; empty when `run` is overridden and the root has no `Literal`.
    """

    cls: type[TrioModule[Any, Any, Any, Any]]
    id: str
    name: str
    input_model: type[BaseModel]
    triggers: Triggers
    roots: Roots
    setup_model: type[BaseModel]
    selects_tools: bool
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
            DiscoveryError: Files of triggers cannot be used; names each with its cause.
            ModuleDefinitionError: Names what is missing, where it is, and how to add it.
        """
        if not (isinstance(module, type) and issubclass(module, TrioModule)):
            raise ModuleDefinitionError(f"{module!r} is not a module class.", hint="Derive it from dk_trio.TrioModule.")
        module.discover()
        triggers = module.triggers()
        own_run = module.run is not TrioModule.run
        if not triggers and not own_run:
            raise ModuleDefinitionError(
                f"{module.__name__} has no triggers and no run method of its own, so it can do nothing "
                f"({where(module)}).",
                hint=_imported_twice(module)
                or f"Register a handler with @{module.__name__}.register, or override run().",
            )
        check_made(module, (), "super().__init__()")
        arguments = {hook: _arguments(module, hook) for hook in _HOOKS}
        model = input_model(module, triggers)
        check_output(module)
        _check_setup(module, triggers)
        known = roots_by_protocol(model)
        check_routes(model, triggers, known)
        return cls(
            cls=module,
            id=module_id or module.get_module_id(),
            name=module.name or module.__name__,
            input_model=model,
            triggers=triggers,
            roots=known,
            setup_model=clean_model(module.setup_format, config_fields=False, hidden_fields=True),
            selects_tools=may_select(module.setup_format),
            protocols=tuple(known if own_run else triggers),
            run_takes_context=own_run and arguments["run"] > 2,
            cleanup_takes_context=arguments["cleanup"] > 0,
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
        if "cost_limits" in data and "cost_limits" not in self.input_model.model_fields:
            data = {key: value for key, value in data.items() if key != "cost_limits"}
        root = data.get("root")
        if not isinstance(root, dict):
            found = f"root is {brief(root)}" if "root" in data else f"the keys are {sorted(map(str, data))}"
            raise InvalidInputError(
                f"The input has no root object: {found}.",
                hint='Send {"root": {"protocol": ..., ...}}.',
                violations=[Violation("input.root", f"must be an object with a protocol: {found}")],
            )
        known = self.protocols
        if known:
            protocol = root.get("protocol")
            if protocol is None and len(known) == 1:
                root = {**root, "protocol": known[0]}
                data = {**data, "root": root}
            elif protocol not in known:
                what = "root.protocol is missing" if protocol is None else f"Unknown protocol {brief(protocol)}"
                rule = f"must be one of: {_listing(known)}"
                if protocol is not None:
                    rule += f" (got {brief(protocol)})"
                raise UnknownProtocolError(
                    f"{what}; {self.name} knows {_listing(known)}.",
                    violations=[Violation("input.root.protocol", rule)],
                )
        try:
            return self.input_model.model_validate(data)
        except ValidationError as error:
            told = root.get("protocol")
            rows = rows_of_root(error, data, self.roots.get(told, ()) if isinstance(told, str) else ())
            raise InvalidInputError(
                f"The input does not fit {self.name}: {explain(rows)}.", violations=violations_of(rows, "input")
            ) from None

    def parse_setup(self, content: Mapping[str, Any], *, setup_id: str) -> Any:
        """The content of a setup as jobs run with it; a new object each time, so that no job sees another's.

        Raises:
            InvalidSetupError: Names each field that does not fit, and why.
        """
        return self._parsed(self.setup_model, content, setup_id, "setup")

    def parse_form(self, content: Mapping[str, Any], *, setup_id: str) -> Any:
        """A form that a user has filled in, as the module's setup format.

        Raises:
            InvalidSetupError: Names each field that does not fit, and why.
        """
        return self._parsed(self.cls.setup_format, content, setup_id, "content")

    @functools.cached_property
    def form_only(self) -> frozenset[str]:
        """The keys of a setup that are in its form and not in jobs."""
        given, kept = self.cls.setup_format.model_fields, self.setup_model.model_fields
        fields = [(name, field) for name, field in given.items() if name not in kept]
        return frozenset(key for name, field in fields for key in (name, field.alias, field.serialization_alias) if key)

    def _parsed(self, model: type[BaseModel], content: Mapping[str, Any], setup_id: str, field: str) -> Any:
        copy = _copied(content)
        try:
            return model.model_validate(copy)
        except ValidationError as error:
            rows = rows_of(error, copy)
            raise InvalidSetupError(
                f"Setup {setup_id!r} does not fit {self.name}: {explain(rows)}.",
                violations=violations_of(rows, field),
            ) from None


def _check_setup(module: type[TrioModule[Any, Any, Any, Any]], triggers: Triggers) -> None:
    """Refuse a setup format that is none, and handlers that expect another."""
    given = module.setup_format
    if not is_model(given) or issubclass(given, (DataModel, DataTrigger)):
        what = "is not a model class" if not is_model(given) else "is an input or output, not a setup"
        raise ModuleDefinitionError(
            f"{module.__name__}.setup_format is {shown(given)}, which {what} ({where(module)}).",
            hint="Give a class that derives from SetupModel. The type arguments of a module are input, output, setup, "
            "secret.",
        )
    for handlers in triggers.values():
        for handler in handlers:
            _, expected, *_ = (*type_arguments(handler, TriggerHandler), None, None)
            # SetupModel is what the type argument is when it was left out.
            if is_model(expected) and expected is not SetupModel and not issubclass(given, expected):
                raise ModuleDefinitionError(
                    f"{handler.__qualname__} expects the setup {expected.__name__}, but that of {module.__name__} is "
                    f"{given.__name__} ({where(handler)}).",
                    hint=f"Name {given.__name__}, or a class it derives from, as the handler's second type argument.",
                )


def _imported_twice(module: type[TrioModule[Any, Any, Any, Any]]) -> str:
    """A hint when the triggers have registered with another copy of this class, which Python has made of one file."""
    for other in module_classes():
        if other is not module and other.__qualname__ == module.__qualname__ and other.triggers():
            try:
                same = inspect.getsourcefile(other) == inspect.getsourcefile(module)
            except (OSError, TypeError):
                continue
            if same:
                return (
                    f"Its file was imported twice, as {module.__module__} and as {other.__module__}, and the handlers "
                    f"have registered with the latter: serve {other.__module__}:{other.__qualname__}."
                )
    return ""


def _copied(value: Any) -> Any:
    """JSON values that share nothing with these: where a field says `Any`, pydantic keeps the very object it was given.

    Not `copy.deepcopy`: it costs more, and the values here are of three kinds.
    """
    if isinstance(value, list):
        return [_copied(item) if isinstance(item, (dict, list)) else item for item in value]
    return {key: _copied(item) if isinstance(item, (dict, list)) else item for key, item in value.items()}


def _arguments(module: type[TrioModule[Any, Any, Any, Any]], hook: str) -> int:
    """How many arguments a hook is called with.

    Raises:
        ModuleDefinitionError: It is not async, or there is no way to call it.
    """
    method = getattr(module, hook)
    shapes = _HOOKS[hook]
    name = f"{module.__name__}.{hook}"
    written = f"Write it as `async def {hook}({', '.join(('self', *shapes[-1]))})`."
    if method is getattr(TrioModule, hook):
        return len(shapes[-1])
    if inspect.isasyncgenfunction(inspect.unwrap(method)):
        raise ModuleDefinitionError(
            f"{name} is an async generator, whose yields nobody would get ({where(method)}).",
            hint="Send with `await self.context.send(...)`; handlers may yield.",
        )
    if not inspect.iscoroutinefunction(inspect.unwrap(method)):
        raise ModuleDefinitionError(f"{name} is not async ({where(method)}).", hint=written)
    parameters = inspect.signature(method).parameters.values()
    named = sum(each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD} for each in parameters)
    named -= takes_self(module, hook)
    fitting = [shape for shape in shapes if callable_with(module, hook, len(shape))]
    if not fitting:
        wanted = " or ".join(f"({', '.join(shape)})" for shape in shapes)
        raise ModuleDefinitionError(
            f"{name}({', '.join(each.name for each in parameters)}) cannot be called with {wanted} ({where(method)}).",
            hint=written,
        )
    # Where only `*args` would take the context, what is behind it may not expect one.
    return len(next((shape for shape in fitting if named >= len(shape)), fitting[-1]))


def _listing(names: Any) -> str:
    names = list(names)
    shown = ", ".join(names[:_PUBLISHED_AS_TEXT])
    return f"{shown} and {len(names) - _PUBLISHED_AS_TEXT} more" if len(names) > _PUBLISHED_AS_TEXT else shown
