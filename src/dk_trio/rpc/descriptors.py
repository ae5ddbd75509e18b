"""An index of serialised `FileDescriptorSet`s: which file declares a name, an extension, and what it imports.

Reflection hands out files as they were compiled and asks only for names, so a walker over the wire format is enough:
no protobuf runtime, and files of any edition pass through untouched. Field numbers are those of
google/protobuf/descriptor.proto, which may not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZE: Final = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT: Final = 10  # bytes that 64 bits take, seven in each
_MAX_NESTING: Final = 64
"""Messages declared within messages. protoc itself accepts 32 levels."""

# FileDescriptorSet
_SET_FILE: Final = 1
# FileDescriptorProto
_FILE_NAME, _FILE_PACKAGE, _FILE_DEPENDENCY = 1, 2, 3
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE, _FILE_EXTENSION = 4, 5, 6, 7
# DescriptorProto
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM, _MESSAGE_EXTENSION, _MESSAGE_ONEOF = 2, 3, 4, 6, 8
# EnumDescriptorProto, ServiceDescriptorProto
_ENUM_VALUE: Final = 2
_SERVICE_METHOD: Final = 2
# FieldDescriptorProto
_FIELD_EXTENDEE, _FIELD_NUMBER = 2, 3
# Everything that has a name has it here.
_NAME: Final = 1


@dataclass(slots=True)
class File:
    """One .proto file, as compiled."""

    data: bytes
    """Its FileDescriptorProto, serialised."""
    name: str = ""
    dependencies: list[str] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    """Full names of what it declares: messages, fields, oneofs, enums, enum values, services, methods, extensions."""
    messages: list[str] = field(default_factory=list)
    """Those of them that are messages."""
    extensions: list[tuple[str, int]] = field(default_factory=list)
    """Full name of the extended message, and field number."""


class DescriptorIndex:
    """What a reflection service looks things up in.

    `sets` are serialised FileDescriptorSets, as `protoc --include_imports --descriptor_set_out` writes them. Of files
    with the same name the first counts. Raises ValueError for bytes that are no FileDescriptorSet.
    """

    def __init__(self, sets: Iterable[bytes]) -> None:
        self._files: dict[str, File] = {}
        self._by_symbol: dict[str, File] = {}
        self._by_extension: dict[tuple[str, int], File] = {}
        self._extensions: dict[str, list[int]] = {}
        for data in sets:
            self.add(data)

    def __repr__(self) -> str:
        return f"<DescriptorIndex {len(self._files)} files, {len(self._by_symbol)} symbols>"

    def add(self, data: bytes) -> None:
        """Index one more FileDescriptorSet."""
        for parsed in parse_files(data):
            if parsed.name not in self._files:
                self._add(parsed)

    def _add(self, parsed: File) -> None:
        self._files[parsed.name] = parsed
        for symbol in parsed.symbols:
            self._by_symbol.setdefault(symbol, parsed)
        for message in parsed.messages:
            self._extensions.setdefault(message, [])
        for message, number in parsed.extensions:
            self._by_extension.setdefault((message, number), parsed)
            numbers = self._extensions.setdefault(message, [])
            if number not in numbers:
                numbers.append(number)

    def file(self, name: str) -> File | None:
        """The file of this name."""
        return self._files.get(name)

    def file_of_symbol(self, symbol: str) -> File | None:
        """The file that declares this full name."""
        return self._by_symbol.get(symbol)

    def file_of_extension(self, message: str, number: int) -> File | None:
        """The file that extends this message by this field number."""
        return self._by_extension.get((message, number))

    def extension_numbers(self, message: str) -> list[int] | None:
        """Numbers of all extensions of a message, None for an unknown message."""
        return self._extensions.get(message)

    def with_dependencies(self, file: File) -> list[bytes]:
        """The file, and all that it imports, directly or not, each once; imports that are not here are left out."""
        found = {file.name: file}
        waiting = [file]
        while waiting:
            for name in waiting.pop().dependencies:
                dependency = self._files.get(name)
                if dependency is not None and name not in found:
                    found[name] = dependency
                    waiting.append(dependency)
        return [each.data for each in found.values()]


def parse_files(data: bytes) -> list[File]:
    """The files of a serialised FileDescriptorSet. Raises ValueError for bytes that are none."""
    try:
        return [_parse_file(_bytes(value)) for number, value in _fields(data) if number == _SET_FILE]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{len(data)} bytes are not a serialised FileDescriptorSet: {error}") from error


def _parse_file(data: bytes) -> File:
    file = File(data)
    package = ""
    declared = []
    for number, value in _fields(data):
        if number == _FILE_NAME:
            file.name = _text(value)
        elif number == _FILE_PACKAGE:
            package = _text(value)
        elif number == _FILE_DEPENDENCY:
            file.dependencies.append(_text(value))
        elif number in {_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE, _FILE_EXTENSION}:
            declared.append((number, _bytes(value)))  # the package may stand behind them
    if not file.name:
        raise ValueError("a file without a name")
    scope = f"{package}." if package else ""
    for number, value in declared:
        if number == _FILE_MESSAGE:
            _add_message(file, scope, value, 0)
        elif number == _FILE_ENUM:
            _add_enum(file, scope, value)
        elif number == _FILE_SERVICE:
            _add_service(file, scope, value)
        else:
            _add_extension(file, scope, value)
    return file


def _add_message(file: File, scope: str, data: bytes, depth: int) -> None:
    if depth > _MAX_NESTING:
        raise ValueError(f"messages nested more than {_MAX_NESTING} deep")
    name = scope + _name(data)
    file.symbols.append(name)
    file.messages.append(name)
    inner = f"{name}."
    for number, value in _fields(data):
        if number in {_MESSAGE_FIELD, _MESSAGE_ONEOF}:
            file.symbols.append(inner + _name(_bytes(value)))
        elif number == _MESSAGE_NESTED:
            _add_message(file, inner, _bytes(value), depth + 1)
        elif number == _MESSAGE_ENUM:
            _add_enum(file, inner, _bytes(value))
        elif number == _MESSAGE_EXTENSION:
            _add_extension(file, inner, _bytes(value))


def _add_enum(file: File, scope: str, data: bytes) -> None:
    file.symbols.append(scope + _name(data))
    # Values are siblings of their enum, not members of it: C++ scoping, the language's rule.
    file.symbols.extend(scope + _name(_bytes(value)) for number, value in _fields(data) if number == _ENUM_VALUE)


def _add_service(file: File, scope: str, data: bytes) -> None:
    name = scope + _name(data)
    file.symbols.append(name)
    file.symbols.extend(
        f"{name}.{_name(_bytes(value))}" for number, value in _fields(data) if number == _SERVICE_METHOD
    )


def _add_extension(file: File, scope: str, data: bytes) -> None:
    file.symbols.append(scope + _name(data))
    extendee, number = "", 0
    for key, value in _fields(data):
        if key == _FIELD_EXTENDEE:
            extendee = _text(value).removeprefix(".")
        elif key == _FIELD_NUMBER and isinstance(value, int):
            number = value
    file.extensions.append((extendee, number))


def _name(data: bytes) -> str:
    for number, value in _fields(data):
        if number == _NAME:
            return _text(value)
    raise ValueError("a declaration without a name")


def _text(value: bytes | int) -> str:
    return _bytes(value).decode()


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where text or a message belongs")  # noqa: TRY004  the bytes are at fault
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field number and value of each field: a number for a varint, bytes for everything else."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            number, position = _varint(data, position)
            yield tag >> 3, number
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in _FIXED_SIZE:
            size = _FIXED_SIZE[kind]
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        end = position + size
        if end > len(data):
            raise ValueError(f"a field of {size} bytes where {len(data) - position} are left")
        yield tag >> 3, data[position:end]
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = 0
    for index in range(_MAX_VARINT):
        byte = data[position + index]
        result |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return result, position + index + 1
    raise ValueError(f"a number that does not end at byte {position}")
