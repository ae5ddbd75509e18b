"""The settings: frozen, typed, one dataclass per layer, and the only reader of the environment.

`Settings.load()` reads once: flag, else environment, else file, else preset, else default. Everything below gets the
values passed down. What cannot be used is a `SettingError` that names variable, value and remedy, all of it at once.
`settings.report()` shows each value with its source. `settings.warnings` tells of variables that have no effect, and of
values that do not fit each other.

Plain dataclasses, not pydantic-settings: the table has to know aliases, units, ranges and sources anyway, and a client
process (`dk-trio call`) then starts without importing pydantic (0.07 s) and pydantic-settings (0.02 to 0.4 s).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ._checks import contradictions, warnings_of, without_effect
from ._envfile import export_others, read_env_file
from ._layers import LAYERS as LAYERS
from ._layers import ChannelSettings as ChannelSettings
from ._layers import LifecycleSettings as LifecycleSettings
from ._layers import ModuleSettings as ModuleSettings
from ._layers import ObserveSettings as ObserveSettings
from ._layers import QuerySettings as QuerySettings
from ._layers import SecuritySettings as SecuritySettings
from ._layers import ServerSettings as ServerSettings
from ._layers import ServicesSettings as ServicesSettings
from ._layers import SignalSettings as SignalSettings
from ._layers import SlotWait as SlotWait
from ._layers import TaskSettings as TaskSettings
from ._names import nearest as nearest
from ._names import warnings_for
from ._names import why_not_used as why_not_used
from ._presets import PRESETS as PRESETS
from ._reading import CREDENTIALS, Given, find, given_by, read_layers
from ._reading import Flag as Flag
from ._reading import Source as Source
from ._reading import all_variables as all_variables
from ._services import MEMORY as MEMORY
from ._variable import Variable as Variable
from ._variable import refuse
from ._variable import target as target

PRESET = "DIGITALKIN_PRESET"
RAILWAY = "RAILWAY_SERVICE_NAME"
"""Railway sets it, and its log viewer takes JSON."""


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
        """Read every variable once, and no file.

        Args:
            environ: Read from this mapping in place of the process's environment.
            serving: Whether the process serves; a client in a server's environment need not hear of its limits.

        Raises:
            SettingError: Values do not parse, are out of range, or contradict others; it tells of all of them.
        """
        return cls.load(environ=environ, serving=serving)

    @classmethod
    def load(
        cls,
        *,
        flags: Iterable[Flag] = (),
        environ: Mapping[str, str] | None = None,
        env_file: Path | None = None,
        preset: str | None = None,
        serving: bool = True,
        export: bool = True,
    ) -> Settings:
        """Read every variable once: from the flags, else the environment, else the file, else the preset.

        Args:
            flags: Options of a command that stand for variables.
            environ: Read from this mapping in place of the process's environment.
            env_file: Lines of NAME=value. Those that are no settings are put into the process's environment, unless
                another is read, or `export` is false.
            preset: Name of a preset, before that of DIGITALKIN_PRESET.
            serving: Whether the process serves; a client in a server's environment need not hear of its limits.
            export: Whether code of a module is to find the file's other variables in the environment.

        Raises:
            SettingError: Values do not parse, are out of range, or contradict others; it tells of all of them. Or the
                file cannot be read.
        """
        own, environ = environ is None, os.environ if environ is None else environ
        places = [*given_by((*flags, Flag("--preset", PRESET, preset))), Given("environment", environ)]
        names = frozenset(name for row in all_variables() for name in row.names)
        if env_file is not None:
            values = read_env_file(env_file)
            if own and export:
                export_others(values, read=names)
            places.append(Given(f"file {env_file}", values, where=str(env_file)))
        chosen = find(next(row for row in all_variables() if row.name == PRESET), places)
        if chosen is not None:
            name = chosen[0].values[chosen[1]].strip().lower()  # one that does not exist is an error of the variable
            places.append(Given(f"preset {name}", PRESETS.get(name, {})))
        if environ.get(RAILWAY):
            places.append(Given(f"environment, {RAILWAY}", {"DIGITALKIN_LOG_FORMAT": "json"}))
        layers, sources = read_layers(places)
        refuse(contradictions(layers["server"], layers["observe"]))
        given = {name: value for place in reversed(places) for name, value in place.values.items()}
        warnings = [*warnings_for(given, read=names | {CREDENTIALS})]
        if serving:
            warnings += warnings_of(layers, sources)
        return cls(**layers, sources=sources, warnings=tuple(warnings))

    def notes(self) -> dict[str, str]:
        """What should be known of a variable's value beside it: that it binds, or has no effect and why."""
        layers = {name: getattr(self, name) for name in LAYERS}
        notes = {name: f"no effect, {why}" for name, why in without_effect(layers).items()}
        seconds, variable = self.tasks.slot_wait
        wait = (
            "as long as it takes" if seconds == math.inf else f"for {seconds:g} s at most" if seconds else "not at all"
        )
        notes[variable] = f"binds, a task waits for a slot {wait}"
        return notes

    def report(self) -> str:
        """One line per variable: name, value, source; and whether it has an effect, where others decide that."""
        notes = {name: f": {note}" for name, note in self.notes().items()}
        return "\n".join(
            f"{row.variable.name}={row.value} ({row.origin}){notes.get(row.variable.name, '')}" for row in self.sources
        )
