"""The settings: frozen, typed, one dataclass per layer, and the only reader of the environment.

`Settings.from_environment()` reads once; everything below gets the values passed down. A value that cannot be used is a
`SettingError` that names variable, value and remedy. `settings.report()` shows each value with its source and
`settings.warnings` tells of variables that have no effect.

Plain dataclasses, not pydantic-settings: the table has to know aliases, units, ranges and sources anyway, and a client
process (`dk-trio call`) then starts without importing pydantic (0.07 s) and pydantic-settings (0.02 to 0.4 s).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from ._layers import ChannelSettings as ChannelSettings
from ._layers import ModuleSettings as ModuleSettings
from ._layers import ServerSettings as ServerSettings
from ._names import warnings_for
from ._variable import Variable as Variable
from ._variable import variable_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    LayerT = TypeVar("LayerT", bound=DataclassInstance)

LAYERS: Mapping[str, type[Any]] = {"server": ServerSettings, "module": ModuleSettings, "channel": ChannelSettings}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One line of the report: a variable, its value in the variable's own unit, and where that came from."""

    variable: Variable
    value: object
    origin: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a process."""

    server: ServerSettings = field(default_factory=ServerSettings)
    module: ModuleSettings = field(default_factory=ModuleSettings)
    channel: ChannelSettings = field(default_factory=ChannelSettings)
    sources: tuple[Source, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read every variable once.

        Args:
            environ: Read from this mapping in place of the process's environment.

        Raises:
            SettingError: A value does not parse, is out of range, or contradicts another.
        """
        environ = os.environ if environ is None else environ
        sources: list[Source] = []
        return cls(
            server=_read(ServerSettings, environ, sources),
            module=_read(ModuleSettings, environ, sources),
            channel=_read(ChannelSettings, environ, sources),
            sources=tuple(sources),
            warnings=tuple(warnings_for(environ, read={name for row in all_variables() for name in row.names})),
        )

    def report(self) -> str:
        """One line per variable: name, value, source."""
        return "\n".join(f"{row.variable.name}={row.value} ({row.origin})" for row in self.sources)


def all_variables() -> list[Variable]:
    """Every variable that this version reads, in the order of the layers."""
    return [variable_of(spec) for layer in LAYERS.values() for spec in fields(layer)]


def _read(layer: type[LayerT], environ: Mapping[str, str], sources: list[Source]) -> LayerT:
    values: dict[str, object] = {}
    for spec in fields(layer):
        variable = variable_of(spec)
        # An empty variable counts as unset: compose files and charts pass empty values for "not configured".
        name = next((name for name in variable.names if environ.get(name)), None)
        if name is None:
            sources.append(Source(variable=variable, value=variable.default_text(), origin="default"))
        else:
            values[spec.name] = variable.parse(name, environ[name])
            sources.append(Source(variable=variable, value=environ[name], origin=f"environment {name}"))
    return layer(**values)
