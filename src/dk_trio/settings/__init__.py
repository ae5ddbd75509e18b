"""The settings: frozen, typed, one dataclass per layer, and the only reader of the environment.

`Settings.from_environment()` reads once; everything below gets the values passed down. A value that cannot be used is a
`SettingError` that names variable, value and remedy. `settings.report()` shows each value with its source and
`settings.warnings` tells of variables that have no effect, and of values that do not fit each other.

Plain dataclasses, not pydantic-settings: the table has to know aliases, units, ranges and sources anyway, and a client
process (`dk-trio call`) then starts without importing pydantic (0.07 s) and pydantic-settings (0.02 to 0.4 s).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ._layers import LAYERS
from ._layers import ChannelSettings as ChannelSettings
from ._layers import LifecycleSettings as LifecycleSettings
from ._layers import ModuleSettings as ModuleSettings
from ._layers import ObserveSettings as ObserveSettings
from ._layers import QuerySettings as QuerySettings
from ._layers import SecuritySettings as SecuritySettings
from ._layers import ServerSettings as ServerSettings
from ._layers import ServicesSettings as ServicesSettings
from ._layers import SignalSettings as SignalSettings
from ._layers import TaskSettings as TaskSettings
from ._names import warnings_for
from ._variable import MASK, variable_of
from ._variable import Variable as Variable
from ._variable import target as target

_DEFAULT = "default"


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
    tasks: TaskSettings = field(default_factory=TaskSettings)
    lifecycle: LifecycleSettings = field(default_factory=LifecycleSettings)
    services: ServicesSettings = field(default_factory=ServicesSettings)
    signals: SignalSettings = field(default_factory=SignalSettings)
    query: QuerySettings = field(default_factory=QuerySettings)
    channel: ChannelSettings = field(default_factory=ChannelSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    observe: ObserveSettings = field(default_factory=ObserveSettings)
    sources: tuple[Source, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, *, serving: bool = True) -> Settings:
        """Read every variable once.

        Args:
            environ: Read from this mapping in place of the process's environment.
            serving: Whether the process serves; a client in a server's environment need not hear of its limits.

        Raises:
            SettingError: A value does not parse, is out of range, or contradicts another.
        """
        environ = os.environ if environ is None else environ
        sources: list[Source] = []
        layers = {name: _read(layer, environ, sources) for name, layer in LAYERS.items()}
        read = {name for row in all_variables() for name in row.names}
        warnings = [*warnings_for(environ, read=read)]
        if serving:
            warnings += [*_without_effect(layers["tasks"], sources), *_too_few_rpcs(layers["server"], layers["tasks"])]
        return cls(**layers, sources=tuple(sources), warnings=tuple(warnings))

    def report(self) -> str:
        """One line per variable: name, value, source; and whether it has an effect, where others decide that."""
        notes = {name: f": no effect, {why}" for name, why in self.tasks.without_effect().items()}
        seconds, variable = self.tasks.slot_wait
        wait = (
            "as long as it takes" if seconds == math.inf else f"for {seconds:g} s at most" if seconds else "not at all"
        )
        notes[variable] = f": binds, a task waits for a slot {wait}"
        return "\n".join(
            f"{row.variable.name}={row.value} ({row.origin}){notes.get(row.variable.name, '')}" for row in self.sources
        )


def all_variables() -> list[Variable]:
    """Every variable that this version reads, in the order of the layers."""
    return [variable_of(spec) for layer in LAYERS.values() for spec in fields(layer)]


def _read(layer: type[Any], environ: Mapping[str, str], sources: list[Source]) -> Any:
    values: dict[str, object] = {}
    for spec in fields(layer):
        variable = variable_of(spec)
        # An empty variable counts as unset: compose files and charts pass empty values for "not configured".
        name = next((name for name in variable.names if environ.get(name)), None)
        if name is None:
            sources.append(Source(variable=variable, value=variable.default_text(), origin=_DEFAULT))
        else:
            values[spec.name] = variable.parse(name, environ[name])
            value = MASK if variable.secret else environ[name]
            sources.append(Source(variable=variable, value=value, origin=f"environment {name}"))
    return layer(**values)


def _without_effect(tasks: TaskSettings, sources: list[Source]) -> Iterator[str]:
    """An operator who sets a variable believes in it; the defaults of the other mode nobody has asked for."""
    reasons = tasks.without_effect()
    for source in sources:
        name = source.variable.name
        if name in reasons and source.origin != _DEFAULT:
            yield f"{name} is set but has no effect: {reasons[name]}."


def _too_few_rpcs(server: ServerSettings, tasks: TaskSettings) -> Iterator[str]:
    """The first golden rule of the tuning guide. The defaults keep it on any machine, so this tells of a choice."""
    rpcs, slots, queued = server.max_concurrent_rpcs, tasks.max_concurrent_tasks, tasks.max_queued_tasks
    if rpcs < slots + queued:
        yield (
            f"DIGITALKIN_MAX_CONCURRENT_RPCS is {rpcs}, less than DIGITALKIN_MAX_CONCURRENT_TASKS + "
            f"DIGITALKIN_MAX_QUEUED_TASKS with {slots} + {queued}: callers are refused while there is room for their "
            f"tasks. Set it to {slots + queued} or more."
        )
