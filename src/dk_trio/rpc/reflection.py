"""Server reflection (grpc.reflection.v1 and v1alpha): tell clients such as grpcurl what is served, and how it looks.

The two versions have the same messages under different names, so one class answers both. A question without an answer
gets an error response and the stream goes on, as the protocol says; the status of the call stays OK. Files come with
all that they import, as gRPC's own servers send them. Nothing is remembered between questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any, Final

from grpclib.const import Cardinality, Handler, Status

from .descriptors import DescriptorIndex

if TYPE_CHECKING:
    from .descriptors import File
    from .server import Service

VERSIONS: Final = ("v1", "v1alpha")
"""Packages below grpc.reflection; older clients know the second only."""


def reflection(services: Iterable[Service], *, descriptors: Iterable[bytes] = ()) -> list[Service]:
    """The service objects that make `services` visible; serve them together with these.

    `descriptors` are serialised FileDescriptorSets of your own services, from `protoc --include_imports
    --descriptor_set_out=FILE`; without them a service is listed but cannot be described. Those of the services that
    come with this package are known already. Raises ValueError for bytes that are no FileDescriptorSet.
    """
    paths = [path for service in services for path in service.__mapping__()]
    names = {path.split("/")[1] for path in paths}
    names.update(f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS)
    source = _Descriptors(descriptors)
    return [_ServerReflection(version, sorted(names), source) for version in VERSIONS]


class _Descriptors:
    """The index, completed by the package's own descriptors when it is first needed."""

    def __init__(self, sets: Iterable[bytes]) -> None:
        self._index = DescriptorIndex(sets)  # now, so that bad bytes are an error here and not some client's
        self._complete = False

    def index(self) -> DescriptorIndex:
        if not self._complete:
            self._index.add(resources.files("dk_trio.pb").joinpath("descriptors.bin").read_bytes())
            self._complete = True
        return self._index


class _ServerReflection:
    """One version of the reflection service."""

    def __init__(self, version: str, names: list[str], source: _Descriptors) -> None:
        self._package = f"grpc.reflection.{version}"
        self._names = names
        self._source = source
        self._messages: Any = None

    def __repr__(self) -> str:
        return f"<rpc.reflection {self._package} of {len(self._names)} services>"

    def __mapping__(self) -> dict[str, Handler]:
        self._messages = messages = import_module(f"dk_trio.pb.{self._package}")
        return {
            f"/{self._package}.ServerReflection/ServerReflectionInfo": Handler(
                self._answer_all,
                Cardinality.STREAM_STREAM,
                messages.ServerReflectionRequest,
                messages.ServerReflectionResponse,
            )
        }

    async def _answer_all(self, call: Any) -> None:
        async for request in call:
            answer = self._answer(request)
            await call.send_message(
                self._messages.ServerReflectionResponse(valid_host=request.host, original_request=request, **answer)
            )

    def _answer(self, request: Any) -> dict[str, Any]:
        """The field of the response's oneof, and its value."""
        index = self._source.index()
        messages = self._messages
        if request.file_by_filename is not None:
            name = request.file_by_filename
            return self._file(index, index.file(name), f"file {name!r}")
        if request.file_containing_symbol is not None:
            symbol = request.file_containing_symbol
            return self._file(index, index.file_of_symbol(symbol), f"symbol {symbol!r}")
        if request.file_containing_extension is not None:
            message = request.file_containing_extension.containing_type
            number = request.file_containing_extension.extension_number
            file = index.file_of_extension(message, number)
            return self._file(index, file, f"extension {number} of {message!r}")
        if request.all_extension_numbers_of_type is not None:
            message = request.all_extension_numbers_of_type
            numbers = index.extension_numbers(message)
            if numbers is None:
                return self._error(Status.NOT_FOUND, f"message type {message!r} is not known here")
            response = messages.ExtensionNumberResponse(base_type_name=message, extension_number=numbers)
            return {"all_extension_numbers_response": response}
        if request.list_services is not None:
            listed = [messages.ServiceResponse(name=name) for name in self._names]
            return {"list_services_response": messages.ListServiceResponse(service=listed)}
        return self._error(Status.INVALID_ARGUMENT, "the request asks for nothing that this server knows")

    def _file(self, index: DescriptorIndex, file: File | None, what: str) -> dict[str, Any]:
        if file is None:
            return self._error(Status.NOT_FOUND, f"{what} is not known here")
        files = index.with_dependencies(file)
        return {"file_descriptor_response": self._messages.FileDescriptorResponse(file_descriptor_proto=files)}

    def _error(self, status: Status, text: str) -> dict[str, Any]:
        return {"error_response": self._messages.ErrorResponse(error_code=status.value, error_message=text)}
