"""From what was given in several places to the layers: the first place that has a value of a variable wins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from dk_trio.errors import SettingError

from ._layers import LAYERS
from ._variable import Variable, refuse, variable_of

DEFAULT = "default"
CREDENTIALS = "SERVER_CHANNEL_CREDENTIALS"
_CREDENTIALS = ("cert_path", "key_path", "root_cert_path")


class Flag(NamedTuple):
    """An option of a command that stands for a variable."""

    option: str
    """As one writes it, such as `--port`."""
    variable: str
    value: object
    """None when the option was not given."""


class Given(NamedTuple):
    """A place with values: what it is called in the report, and the variables that are set there."""

    origin: str
    values: Mapping[str, str]
    option: str = ""
    """The option of a command, which an error names in place of the variable."""
    where: str = ""
    """The file, which an error names beside the variable."""


class Source(NamedTuple):
    """One line of the report: a variable, its value in the variable's own unit, and where that came from."""

    variable: Variable
    layer: str
    value: str
    """Masked when it is a secret."""
    origin: str
    changed: bool
    """Whether the value is another than the default."""

    @property
    def given(self) -> bool:
        """Whether somebody has said it, if only what the default is."""
        return self.origin != DEFAULT


class Read(NamedTuple):
    """The layers by their names, and where each of their values came from."""

    layers: dict[str, Any]
    sources: tuple[Source, ...]


def given_by(flags: Iterable[Flag]) -> list[Given]:
    """Options as places with one value each."""
    return [
        Given(f"flag {flag.option}", {flag.variable: str(flag.value)}, option=flag.option)
        for flag in flags
        if flag.value is not None
    ]


def read_layers(places: Sequence[Given]) -> Read:
    """Read every variable.

    Raises:
        SettingError: Values do not parse, are out of range, or contradict others; it tells of all of them.
    """
    sources: list[Source] = []
    errors: list[SettingError] = []
    layers: dict[str, Any] = {}
    places = [_with_credentials(place, errors) for place in places]
    for name, layer in LAYERS.items():
        values: dict[str, object] = {}
        wrong = len(errors)
        for spec in fields(layer):
            variable = variable_of(spec)
            try:
                source, value = _read(variable, name, places)
            except SettingError as error:
                errors.append(error)
            else:
                sources.append(source)
                values[spec.name] = value
        if len(errors) == wrong:
            try:
                layers[name] = layer(**values)
            except SettingError as error:
                errors.append(error)
    refuse(errors)
    return Read(layers, tuple(sources))


def find(variable: Variable, places: Sequence[Given]) -> tuple[Given, str] | None:
    """The place that decides, and the name that is set there; none for the default."""
    for place in places:
        for name in variable.names:
            # An empty variable counts as unset: compose files and charts pass empty values for "not configured".
            if place.values.get(name):
                return place, name
    return None


def _read(variable: Variable, layer: str, places: Sequence[Given]) -> tuple[Source, object]:
    default = variable.default()
    found = find(variable, places)
    if found is None:
        text, origin, value = variable.default_text(), DEFAULT, default
    else:
        place, name = found
        text = variable.shown(place.values[name])
        origin = place.origin if name == variable.name else f"{place.origin}, as {name}"
        value = variable.parse(place.option or name, place.values[name], where=place.where)
    return Source(variable=variable, layer=layer, value=text, origin=origin, changed=value != default), value


def _with_credentials(place: Given, errors: list[SettingError]) -> Given:
    """The place with the paths of the existing SDK's JSON as variables, unless they are set there one by one."""
    text = place.values.get(CREDENTIALS)
    if not text:
        return place
    try:
        paths = json.loads(text)
    except ValueError:
        paths = None
    if not isinstance(paths, dict) or not all(
        name in _CREDENTIALS and isinstance(path, str | None) for name, path in paths.items()
    ):
        errors.append(
            SettingError(
                f"{CREDENTIALS} cannot be used: it needs a JSON object of paths, with {', '.join(_CREDENTIALS)}.",
                hint="Or set DIGITALKIN_TLS_CERT, DIGITALKIN_TLS_KEY and DIGITALKIN_TLS_CLIENT_CA.",
            )
        )
        return place
    values = {f"{CREDENTIALS}__{name.upper()}": path for name, path in paths.items() if path}
    return Given(place.origin, {**values, **{k: v for k, v in place.values.items() if v}}, place.option, place.where)


def all_variables() -> list[Variable]:
    """Every variable that this version reads, in the order of the layers."""
    return [variable_of(spec) for layer in LAYERS.values() for spec in fields(layer)]
