"""The methods of the contract and of our own service by the names that people type, and what `--list` says of them.

Everything is taken from the generated code: methods from the mapping of each service, types from the fields, words and
rules from the docstrings, which are the comments of the `.proto` files.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import click
from grpclib.const import Cardinality

from dk_trio.pb._plan import Field, fields_of

# Package -> service. The one that a provider serves under another package's method names comes last.
SERVICES: Final = {
    "storage": "StorageService",
    "cost": "CostService",
    "filesystem": "FilesystemService",
    "setup": "SetupService",
    "registry": "RegistryService",
    "task_manager": "TaskManagerService",
    "user_profile": "UserProfileService",
    "module_registry": "ModuleRegistryService",
    "provider": "ProviderService",
    "module": "ModuleService",
}
_OURS: Final = "provider"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC.

    Attributes:
        package: Such as `storage`.
        name: Such as `StoreRecord`.
        route: Path on the wire.
        cardinality: Whether replies are streamed; requests never are in this contract.
        request: Class of the request.
        reply: Class of the reply, or of each of them.
    """

    package: str
    name: str
    route: str
    cardinality: Cardinality
    request: Any
    reply: Any

    @property
    def short(self) -> str:
        """The shortest name that means no other method."""
        return f"{self.package}.{self.name}"


def methods(package: str) -> dict[str, Method]:
    """The methods of one package by name; importing it takes 50 ms, all of them 0.4 s."""
    module = importlib.import_module(f"dk_trio.pb.{_full(package)}")
    mapping = getattr(module, f"{SERVICES[package]}Base")().__mapping__()
    found = {}
    for route, handler in mapping.items():
        name = route.rpartition("/")[2]
        found[name] = Method(package, name, route, handler.cardinality, handler.request_type, handler.reply_type)
    return found


def _full(package: str) -> str:
    """The whole name of a package."""
    return f"{'dk_trio' if package == _OURS else 'agentic_mesh_protocol'}.{package}.v1"


def all_methods() -> Iterator[Method]:
    """Every method, service by service."""
    for package in SERVICES:
        yield from methods(package).values()


def find(text: str) -> Method:
    """The method that somebody means.

    Args:
        text: `SetupService/GetSetup`, `setup.GetSetup`, the whole path, or the bare name where only one service has it.

    Raises:
        click.UsageError: There is none, or there are several.
    """
    service, _, name = text.strip("/").replace("/", ".").rpartition(".")
    packages = [package for package, known in SERVICES.items() if _means(service, package, known)]
    if service and not packages:
        near = difflib.get_close_matches(service, [*SERVICES, *SERVICES.values()], n=1, cutoff=0.5)
        raise click.UsageError(f"There is no service {service!r}. {_hint(near)}")
    found = [method for package in packages for method in [methods(package).get(name)] if method is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise click.UsageError(f"{name} is a method of several services. Write {_or(row.short for row in found)}.")
    by_lower = {key.lower(): row for package in packages for key, row in methods(package).items()}
    near = [by_lower[key].short for key in difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.5)]
    where = f"The service {service} has no method" if service else "No service has a method"
    raise click.UsageError(f"{where} {name!r}. {_hint(near)}")


def _means(text: str, package: str, service: str) -> bool:
    """Whether `text` names this service; nothing names all of them."""
    return text.lower() in {"", package, service.lower(), f"{_full(package)}.{service}".lower()}


def _hint(near: list[str]) -> str:
    return f"Did you mean {_or(near)}?" if near else "`dk-trio provider ask --list` shows all."


def _or(names: Iterator[str] | list[str]) -> str:
    return " or ".join(names)


def listing() -> str:
    """All methods, one a line, with what they do."""
    rows = [(method.short, _words(method)) for method in all_methods()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {words}" for name, words in rows)


def _words(method: Method) -> str:
    """The first sentence of a method's comment."""
    module = inspect.getmodule(method.request)
    base = getattr(module, f"{SERVICES[method.package]}Base")
    names = {name.replace("_", ""): name for name in vars(base)}
    text = inspect.getdoc(getattr(base, names[method.name.lower()])) or ""
    return " ".join(text.split("\n\n")[0].split())


def describe(method: Method) -> str:
    """The request and the reply of a method, and every message and enum inside them, each once."""
    streamed = "stream of " if method.cardinality is Cardinality.UNARY_STREAM else ""
    lines = [
        f"{method.route.strip('/')}: {_words(method)}",
        f"{method.request.__name__} -> {streamed}{method.reply.__name__}",
    ]
    waiting, told = [method.request, method.reply], set[Any]()
    while waiting:
        cls = waiting.pop(0)
        if cls in told:
            continue
        told.add(cls)
        lines.append("")
        if hasattr(cls, "__dataclass_fields__"):
            lines += _message_lines(cls)
            waiting += [inner for field in fields_of(cls) if (inner := _inner(field)) is not None]
        else:
            lines += _enum_lines(cls)
    return "\n".join(lines)


def _message_lines(cls: Any) -> Iterator[str]:
    about, comments = _comments(cls)
    yield f"{cls.__name__}: {about}"
    rows = [(field.name, type_name(field), *comments.get(field.name, ("", ""))) for field in fields_of(cls)]
    names, types = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    for name, kind, words, rules in rows:
        yield f"  {name:{names}}  {kind:{types}}  {words}{f'  [{rules}]' if rules else ''}".rstrip()


def _enum_lines(cls: Any) -> Iterator[str]:
    about, comments = _comments(cls)
    yield f"{cls.__name__}: {about}"
    names = enum_names(cls)
    width = max(map(len, names.values()))
    for value, name in names.items():
        yield f"  {name:{width}}  {comments.get(cls(value).name, ('', ''))[0]}".rstrip()


def _comments(cls: Any) -> tuple[str, dict[str, tuple[str, str]]]:
    """The comment of a class, and comment and rules of each of its members: the texts behind their definitions."""
    members, name = {}, ""
    for node in _classes(cls.__module__)[cls.__name__].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            words, _, rules = inspect.cleandoc(str(node.value.value)).partition("Rules: ")
            members[name] = (" ".join(words.split()), " ".join(rules.split()))
            name = ""
    return " ".join((inspect.getdoc(cls) or "").split()), members


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module. Python's own way to the source of one parses the whole module each time."""
    source = inspect.getsource(sys.modules[module])
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _inner(field: Field) -> Any:
    """The message or enum class of a field that has to be described itself."""
    field = field.value or field
    return None if field.cls is None or field.wrapper is not None or field.cls.__name__ == "Struct" else field.cls


def type_name(field: Field) -> str:
    """The type of a field, in the words of JSON where it looks otherwise there."""
    if field.kind == "map":
        assert field.key is not None
        assert field.value is not None
        return f"map of {field.key.kind} to {type_name(field.value)}"
    name = {"bytes": "base64", "string": "text"}.get(field.kind, field.kind)
    if field.wrapper is not None:
        name = {"Timestamp": "time", "Duration": "duration"}.get(field.wrapper.__name__, field.wrapper.__name__)
    elif field.cls is not None:
        name = "JSON object" if field.cls.__name__ == "Struct" else field.cls.__name__
    return f"list of {name}" if field.repeated else name


def enum_names(cls: Any) -> dict[int, str]:
    """The names of an enum's values as the contract has them; generated code leaves their prefix out."""
    renamed: dict[int, str] = cls.betterproto_value_to_renamed_proto_names()
    return {value.value: renamed.get(value.value, value.name) for value in cls}
