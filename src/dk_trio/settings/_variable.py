"""One environment variable: its names, how its text becomes a value, its unit and its range."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dk_trio.errors import SettingError, Violation

# How the gRPC service config writes a duration: JSON form of google.protobuf.Duration.
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")

_PASSWORD = re.compile(r"(://[^/@]*:)[^/@]*@")

# The longest wait that a setting may ask for, in seconds: a typing error shows, and no wait is for ever by accident.
WEEK = 604_800.0
SECONDS = "a number of seconds from {:g} to 604800"


class Variable(NamedTuple):
    """A row of the settings table.

    `convert` turns the text into the value and raises `ValueError` with the remedy ("needs a whole number ...").
    """

    name: str
    convert: Callable[[str], object]
    default: Callable[[], object]
    expects: str
    about: str
    aliases: tuple[str, ...] = ()
    secret: bool = False
    """Whether the value is shown nowhere: not in a report, not in an error."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its fallbacks, first wins."""
        return (self.name, *self.aliases)

    @property
    def unit(self) -> str:
        """Of the variable's text: s, ms, bytes, or empty."""
        if "followed by" in self.expects:  # the text has it
            return ""
        words = {"milliseconds": "ms", "seconds": "s", "bytes": "bytes"}
        return next((unit for word, unit in words.items() if word in self.expects), "")

    def shown(self, text: str) -> str:
        """The text as it may be shown: without what is secret, a password in a URL too."""
        from dk_trio.redaction import MASK  # its patterns take 2 ms, and few commands show values

        return MASK if self.secret else _PASSWORD.sub(rf"\1{MASK}@", text)

    def parse(self, name: str, text: str, *, where: str = "") -> object:
        """The value of `text`; `name` is the one of `names` that was set, `where` the file it stands in.

        Raises:
            SettingError: Names the variable, the value and what is expected.
        """
        try:
            return self.convert(text.strip())
        except ValueError:
            shown = self.shown(text)
            place = f" in {where}" if where else ""
            remedy = "Leave it out" if name.startswith("--") else "Unset it"
            raise SettingError(
                f"{name}={shown if self.secret else repr(shown)}{place} cannot be used: it needs {self.expects}.",
                hint=f"{remedy} for the default, {self.default_text()}.",
            ) from None

    def default_text(self) -> str:
        """The default as one would write it into the variable, whose unit may not be that of the value."""
        value = self.default()
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            if "milliseconds" in self.expects:
                return f"{value * 1000:g}"
            return f"{value:g}s" if "followed by an s" in self.expects else f"{value:g}"
        return "none" if value is None else str(value)


def setting(
    name: str,
    convert: Callable[[str], object],
    *,
    default: object = None,
    default_factory: Callable[[], object] | None = None,
    expects: str,
    about: str,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A dataclass field that is read from an environment variable."""
    make = default_factory or (lambda: default)
    row = Variable(
        name=name, convert=convert, default=make, expects=expects, about=about, aliases=aliases, secret=secret
    )
    return dataclasses.field(default_factory=make, metadata={"variable": row}, repr=not secret)


def variable_of(spec: dataclasses.Field[Any]) -> Variable:
    """The table row of a field made by `setting`."""
    variable: Variable = spec.metadata["variable"]
    return variable


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`."""

    def convert(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return convert


def number(low: float, high: float) -> Callable[[str], float]:
    """A number from `low` to `high`."""

    def convert(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # also refuses nan
            raise ValueError(text)
        return value

    return convert


def milliseconds(low: int, high: int) -> Callable[[str], float]:
    """A whole number of milliseconds; the value is in seconds."""
    parse = whole(low, high)
    return lambda text: parse(text) / 1000


def some_milliseconds(low: float, high: float) -> Callable[[str], float]:
    """A number of milliseconds, whole or not; the value is in seconds."""
    parse = number(low, high)
    return lambda text: parse(text) / 1000


def duration(low: float, high: float) -> Callable[[str], float]:
    """Seconds written as the gRPC service config writes them, such as "0.1s"; the value is in seconds."""
    parse = number(low, high)

    def convert(text: str) -> float:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return parse(match[1])

    return convert


def refuse(errors: Iterable[SettingError]) -> None:
    """Raise what is wrong with settings: one error for all of them, with a line for each in its `violations`."""
    all_errors = list(errors)
    if len(all_errors) == 1:
        raise all_errors[0]
    if all_errors:
        lines = [line for error in all_errors for line in lines_of(error)]
        raise SettingError(
            f"{len(lines)} settings cannot be used.\n  " + "\n  ".join(lines),
            violations=[Violation(field=line.split("=")[0].split()[0], description=line) for line in lines],
        )


def lines_of(error: SettingError) -> list[str]:
    """One line for each thing that is wrong."""
    return [violation.description for violation in error.violations] or [error.text]


_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
BOOL = "true or false"


def truth(text: str) -> bool:
    """A yes or no, in any of the spellings of compose files and charts."""
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def choice(*words: str) -> Callable[[str], str]:
    """One of `words`, in whatever case."""

    def convert(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return convert


def path(text: str) -> Path:
    """A path of the file system; a leading ~ is the user's home, ~name that of another one."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # there is no such user
        raise ValueError(text) from error


def secret(text: str) -> str:
    """A token: what can stand in a header of a request, without spaces."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:  # blanks alone would let everybody in
        raise ValueError
    return text


def host(text: str) -> str:
    """A name or an address; an IPv6 address may stand in brackets."""
    text = text.removeprefix("[").removesuffix("]")
    if not text or any(mark in text for mark in " /[]"):
        raise ValueError(text)
    return text


def target(text: str) -> str:
    """`HOST:PORT` of a server; an IPv6 address stands in brackets."""
    name, colon, port = text.rpartition(":")
    bare = host(name)
    if not colon or not port.isdigit() or not 1 <= int(port) <= 65535 or (":" in bare) != name.startswith("["):
        raise ValueError(text)
    return text
