"""What the services of the provider have in common: how a call is received, answered, refused and written once.

A servicer derives from `Servicer` and from the generated base of its service, in this order, and implements its methods
as they are generated, `async def store_record(self, message)`. Around each of them:

- The request is held against the rules of the contract, see `_validation`.
- A `DkTrioError` becomes a status by `dk_trio.statuses`.
- What the method has put into `reply_metadata` goes with the reply. (What is honoured, the server says in every one.)
- `self._write(work)` commits a unit of work and its reply together, under the caller's idempotency key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from grpclib.const import Handler
from pydantic_core import to_json

from dk_trio import extensions
from dk_trio.boundary import only_cause
from dk_trio.errors import DkTrioError, RequestError, Violation
from dk_trio.pb import DecodeError
from dk_trio.rpc import ServiceBase
from dk_trio.statuses import status_of

if TYPE_CHECKING:
    from betterproto2 import Enum
    from multidict import MultiDict

    from dk_trio.pb import Message
    from dk_trio.pb.google.protobuf import Struct
    from dk_trio.rpc import Peer, ServerCall
    from dk_trio.services.stores.work import Work

    from ._options import ProviderOptions
    from ._stores import Stores
    from ._validation import Validation

T = TypeVar("T")
F = TypeVar("F")
M = TypeVar("M", bound="Message")

# Characters of an idempotency key: a uuid has 36.
KEY_MAX: Final = 256

# Bytes of an id or a name. Three of them are one key of PostgreSQL, which takes 2,704.
TEXT_MAX: Final = 768

_current: ContextVar[Call] = ContextVar("dk_trio_provider_call")


class Call:
    """One RPC, as a generated handler sees it: a stream of which it asks the request and gives the reply.

    Attributes:
        request: The request, once it was received.
        reply_metadata: Initial metadata of the reply, beside what the server says in every one.
    """

    __slots__ = ("_stream", "_validation", "reply_metadata", "request")

    def __init__(self, stream: ServerCall, validation: Validation) -> None:
        self._stream = stream
        self._validation = validation
        self.request: Any = None
        self.reply_metadata: dict[str, str] = {}

    @property
    def path(self) -> str:
        """`/package.Service/Method`."""
        return self._stream.head.path

    @property
    def reply_type(self) -> type[Message]:
        """What the method replies with."""
        reply_type: type[Message] = self._stream.handler.reply_type
        return reply_type

    @property
    def metadata(self) -> MultiDict[str | bytes]:
        """Metadata of the request: `str`, or `bytes` for names that end in `-bin`."""
        return self._stream.metadata

    @property
    def peer(self) -> Peer:
        """Who is at the other end of the connection."""
        return self._stream.peer

    @property
    def deadline_at(self) -> float:
        """When the caller's deadline passes, in seconds of `trio.current_time`; `inf` without one."""
        return self._stream.deadline_at

    def text(self, name: str) -> str:
        """A value of the metadata; empty when it is not there."""
        value = self.metadata.get(name, "")
        return value if isinstance(value, str) else ""

    async def recv_message(self) -> Any:
        """The request.

        Raises:
            RequestError: It breaks a rule of the contract, and rules are strict.
        """
        self.request = request = await self._stream.recv_message()
        if request is not None:
            self._validation.check(self.path, request, self._stream.peer)
        return request

    async def send_message(self, message: Any) -> None:
        """Send the reply, with the metadata."""
        if self.reply_metadata:
            await self._stream.send_initial_metadata(metadata=self.reply_metadata)
        await self._stream.send_message(message)


class Servicer(ServiceBase):
    """Base of all servicers.

    Args:
        stores: What is kept.
        options: Of the provider.
        validation: Looks at requests; one for all servicers.
    """

    def __init__(self, stores: Stores, options: ProviderOptions, validation: Validation) -> None:
        self._stores = stores
        self._options = options
        self._validation = validation

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._stores.database!r}>"

    def __mapping__(self) -> dict[str, Handler]:
        """The generated table, with what is common around each method."""
        generated: dict[str, Handler] = super().__mapping__()  # type: ignore[misc]  # of the generated base
        return {path: handler._replace(func=partial(self._serve, handler.func)) for path, handler in generated.items()}

    def statistics(self) -> object:
        """What the service does now; None when it has nothing to tell."""
        return None

    async def run(self) -> None:
        """What goes on for as long as the provider is open; it is cancelled at the end."""

    def _now(self) -> int:
        """Microseconds since the epoch, as stores keep times."""
        return round(self._options.now() * 1_000_000)

    async def _serve(self, handler: Callable[[Any], Any], stream: ServerCall) -> None:
        token = _current.set(Call(stream, self._validation))
        stream.send_timeout = self._options.send_timeout
        try:
            await handler(_current.get())
        except Exception as error:  # boundary: of a service, whose own errors become a status; all others pass
            cause = only_cause(error)
            if not isinstance(cause, DkTrioError):
                raise
            raise status_of(cause) from error
        finally:
            _current.reset(token)

    @property
    def _call(self) -> Call:
        """The call that is being served. Not to be asked by a unit of work, which runs in a task of the database."""
        return _current.get()

    @property
    def _key(self) -> str:
        """The idempotency key of the call; empty when it has none.

        Raises:
            RequestError: It is too long.
        """
        key = self._call.text(extensions.IDEMPOTENCY_KEY)
        if len(key) > KEY_MAX:
            raise refused(extensions.IDEMPOTENCY_KEY, f"has {len(key)} characters, at most {KEY_MAX} are allowed")
        return key

    async def _write(self, work: Callable[[], Work[M]]) -> M:
        """Commit what `work` writes, and return the reply that it returns.

        With an idempotency key the reply is kept in the same transaction, and given again, without `work`, to whoever
        comes with this key, the same method and the same request.

        Raises:
            RequestError: The key is too long.
            IdempotencyError: The key was used for another request.
            Exception: What `work` and `Database.write` raise. Nothing was written.

        Cancellation:
            Nothing was written; what was begun ends first.
        """
        return await self._once(work, bytes, self._call.reply_type.parse)

    async def _write_facts(self, work: Callable[[], Work[F]]) -> F:
        """`_write` for a reply that repeats what the request holds: `work` returns a JSON value, and that is kept."""
        return await self._once(work, lambda facts: json.dumps(facts).encode(), json.loads)

    async def _once(self, work: Callable[[], Work[T]], dump: Callable[[T], bytes], load: Callable[[bytes], Any]) -> T:
        call, key = self._call, self._key
        if not key:
            return await self._stores.database.write(work)
        path, request = call.path, bytes(call.request)
        return await self._stores.database.write(lambda: self._stores.once(key, path, request, work, dump, load))


def struct(value: Struct | None, field: str) -> dict[str, Any]:
    """The dict in a Struct of a request; empty when there is none.

    Raises:
        RequestError: Its bytes are no Struct.
    """
    try:
        return {} if value is None else value.read()
    except DecodeError as error:  # it is read when somebody looks into it, and not before
        raise refused(field, f"is not a valid google.protobuf.Struct: {error}") from error


def json_text(value: Struct | None, field: str) -> str:
    """A Struct of a request as JSON text.

    Raises:
        RequestError: There is none, its bytes are no Struct, or it holds NaN or an infinity, which JSON does not know.
    """
    if value is None:
        raise refused(field, "must be set")
    data = struct(value, field)
    written = to_json(data, inf_nan_mode="constants").decode()  # an eighth of what json.dumps takes
    if "NaN" in written or "Infinity" in written:  # perhaps of a text
        for place, number in _not_json(data, field):
            raise refused(place, f"is {number!r}, which is no number of JSON")
    return written


def _not_json(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_json(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_json(inner, f"{place}[{index}]")


def text(value: str, field: str, *, most: int = TEXT_MAX, empty: bool = False) -> str:
    """A text of a request that can be kept and found again.

    Args:
        value: The text.
        field: What it is called in errors.
        most: Bytes of UTF-8 that it may have.
        empty: It may be empty.

    Raises:
        RequestError: It is empty or too long, or holds a NUL, which PostgreSQL does not take.
    """
    if not value and not empty:
        raise refused(field, "must not be empty")
    if len(value) * 4 > most and (size := len(value.encode())) > most:
        raise refused(field, f"has {size} bytes, at most {most} are allowed")
    if "\0" in value:
        raise refused(field, f"must not hold a NUL, and {value[:80]!r} does")
    return value


def known(value: Enum, field: str) -> str:
    """The name of an enum's value.

    Raises:
        RequestError: The enum does not define it, or it is 0, which means that nothing was said.
    """
    if value and value.name:
        return value.name
    names = ", ".join(member.name for member in type(value) if member and member.name)
    raise refused(field, f"must be one of {names}, not {int(value)}")


def refused(field: str, rule: str, *, hint: str = "") -> RequestError:
    """The error for a field of a request: `rule` says what is wrong with it, after the field's name."""
    return RequestError(f"{field} {rule}.", hint=hint, violations=[Violation(field, rule)])
