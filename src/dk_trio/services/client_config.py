"""`client_config`: which provider a service calls, and how, in the fields of the existing SDK's ClientConfig.

    {"host": "provider.internal", "port": 50051, "security": "secure", "credentials": {"root_cert_path": "/etc/ca.pem"}}

A mapping, or an object with these attributes. Everything that is given has an effect or is refused: a field or channel
option that is not known, credentials that nothing would use, and above all `secure` without credentials, which would
otherwise be a plain text connection.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final

from grpclib.const import Status

from dk_trio import rpc
from dk_trio.errors import ConfigurationError, Violation
from dk_trio.rpc.resolver import parse_target
from dk_trio.security.reload import Reloaded

from .registry import target_of

DEFAULT_PORT: Final = 50051

_FIELDS: Final = (
    "host",
    "port",
    "mode",
    "security",
    "credentials",
    "retry_policy",
    "compression",
    "channel_options",
)
_CREDENTIALS: Final = ("root_cert_path", "client_key_path", "client_cert_path")
_RETRY: Final = ("max_attempts", "initial_backoff", "max_backoff", "backoff_multiplier", "retryable_status_codes")
_COMPRESSIONS: Final = {
    "none": "identity",
    "nocompression": "identity",
    "identity": "identity",
    "gzip": "gzip",
    "deflate": "deflate",
}
_UNLIMITED: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Files of a TLS connection, PEM.

    Attributes:
        root_cert_path: Authorities that are trusted; the system's when None.
        client_key_path: Key of a client that has to show who it is.
        client_cert_path: Its certificate.
    """

    root_cert_path: str | None = None
    client_key_path: str | None = None
    client_cert_path: str | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            ConfigurationError: One of them cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.root_cert_path)
            if self.client_cert_path is not None:
                context.load_cert_chain(self.client_cert_path, self.client_key_path)
        except OSError as error:  # ssl.SSLError is one
            raise _refused("credentials", f"cannot be used: {error} ({', '.join(self._paths)})") from error
        context.set_alpn_protocols(["h2"])
        return context

    def reloaded(self, target: str) -> Reloaded[ssl.SSLContext]:
        """`ssl_context`, made anew when the files change.

        Raises:
            ConfigurationError: One of them cannot be used.
        """
        return Reloaded(f"the TLS of calls to {target}", [Path(path) for path in self._paths], self.ssl_context)

    @property
    def _paths(self) -> list[str]:
        return [path for path in (self.root_cert_path, self.client_cert_path, self.client_key_path) if path is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """A `client_config` that was understood.

    Attributes:
        target: `host:port`, for `rpc.open_channel`.
        options: Of the channel.
        credentials: Of TLS; None: that of the process, which is plaintext unless it was told otherwise.
        plaintext: `security` is `insecure`, in so many words.
    """

    target: str
    options: rpc.ChannelOptions
    credentials: Credentials | None = None
    plaintext: bool = False


def parse_client_config(value: Any, *, defaults: rpc.ChannelOptions) -> ClientConfig:
    """What `value` says; `defaults` for what it does not say.

    Raises:
        ConfigurationError: Something in it is not known, or cannot be used. Its violations name the field.
    """
    fields = _fields_of(value, "", _FIELDS)
    host = fields.get("host")
    if not isinstance(host, str) or not host.strip():
        raise _refused("host", f"must be a host name or an address, not {host!r}")
    port = fields.get("port", DEFAULT_PORT)
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise _refused("port", f"must be a whole number from 1 to 65535, not {port!r}")
    # All calls are made by the same Trio code; the field is checked so that a typing error in it is not kept for later.
    _word(fields, "mode", {"sync": "sync", "async": "async"}, "async")
    secure = _word(fields, "security", {"secure": "secure", "insecure": "insecure"}, "insecure") == "secure"
    credentials = _credentials(fields.get("credentials"))
    if secure and credentials is None:
        hint = "Give credentials with root_cert_path, or credentials={} for the system's authorities."
        raise _refused("credentials", "are missing, and security is 'secure'", hint=hint)
    if credentials is not None and not secure:
        raise _refused("credentials", "are given, and security is 'insecure'", hint="Set security to 'secure'.")
    pairs = _pairs(fields.get("channel_options"))
    options = _with_channel_options(defaults, pairs)
    retry = fields.get("retry_policy")
    if retry is not None:
        options = replace(options, retry=_retry(retry, "retry_policy", options))
    if not dict(pairs).get(_ENABLE_RETRIES, True):  # which goes before every policy, as in gRPC
        options = replace(options, retry=replace(options.retry or rpc.RetryPolicy(), max_attempts=1))
    if fields.get("compression") is not None:
        options = replace(options, compression=_word(fields, "compression", _COMPRESSIONS, "identity"))
    plaintext = not secure and fields.get("security") is not None
    target = target_of(host.strip(), port)
    try:
        parse_target(target)
    except ValueError as error:
        hint = "Give the name or the address alone, without scheme or port; a Unix socket is 'unix:/path'."
        raise _refused("host", f"must be a host name or an address, not {host!r}", hint=hint) from error
    return ClientConfig(target=target, options=options, credentials=credentials, plaintext=plaintext)


def _fields_of(value: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        fields = dict(value)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        fields = {name: field for name, field in vars(value).items() if not name.startswith("_")}
    else:
        raise _refused(where, f"must be a mapping or an object with the fields {', '.join(known)}, not {value!r}")
    for name in fields:
        if name not in known:
            path = f"{where}.{name}" if where else str(name)
            raise _refused(path, "is not known", hint=f"Known are {', '.join(known)}.")
    return fields


def _word(fields: Mapping[str, Any], name: str, words: Mapping[str, str], default: str) -> str:
    value = fields.get(name)
    if value is None:
        return default
    plain = value.value if isinstance(value, Enum) else value
    if not isinstance(plain, str):  # grpc.Compression has numbers
        plain = value.name if isinstance(value, Enum) else ""
    word = words.get(plain.lower())
    if word is None:
        raise _refused(name, f"must be one of {', '.join(sorted(words))}, not {value!r}")
    return word


def _credentials(value: Any) -> Credentials | None:
    if value is None:
        return None
    paths: dict[str, str | None] = {}
    for name, path in _fields_of(value, "credentials", _CREDENTIALS).items():
        if path is not None and not (isinstance(path, str | PathLike) and Path(path).is_file()):
            raise _refused(f"credentials.{name}", f"must be a file that exists, not {str(path)!r}")
        paths[name] = None if path is None else str(path)
    credentials = Credentials(**paths)
    if (credentials.client_key_path is None) != (credentials.client_cert_path is None):
        raise _refused("credentials", "must have both client_key_path and client_cert_path, or neither")
    return credentials


# -- retry policy ------------------------------------------------------------------------------------------------------


def _retry(value: Any, where: str, options: rpc.ChannelOptions) -> rpc.RetryPolicy:
    default = options.retry or rpc.RetryPolicy()
    fields = _fields_of(value, where, _RETRY)
    attempts = fields.get("max_attempts", default.max_attempts)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts <= 10:
        raise _refused(f"{where}.max_attempts", f"must be a whole number from 1 (no retry) to 10, not {attempts!r}")
    multiplier = fields.get("backoff_multiplier", default.multiplier)
    if not isinstance(multiplier, int | float) or isinstance(multiplier, bool) or not 1 <= multiplier <= 100:
        raise _refused(f"{where}.backoff_multiplier", f"must be a number from 1 to 100, not {multiplier!r}")
    return replace(
        default,
        max_attempts=attempts,
        initial_backoff=_seconds(fields.get("initial_backoff", default.initial_backoff), f"{where}.initial_backoff"),
        max_backoff=_seconds(fields.get("max_backoff", default.max_backoff), f"{where}.max_backoff"),
        multiplier=float(multiplier),
        statuses=_statuses(fields.get("retryable_status_codes"), where, default.statuses),
    )


def _seconds(value: Any, where: str) -> float:
    """`"0.1s"`, as service configs have it, or a number."""
    number = value
    if isinstance(value, str) and value.endswith("s"):
        try:
            number = float(value[:-1])
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= 3600:
        raise _refused(where, f'must be seconds above 0 and at most 3600, such as "0.1s", not {value!r}')
    return float(number)


def _statuses(value: Any, where: str, default: frozenset[Status]) -> frozenset[Status]:
    if value is None:
        return default
    statuses = set()
    for each in [value] if isinstance(value, str) or not isinstance(value, Iterable) else value:
        name = each.name if isinstance(each, Enum) else each
        if not isinstance(name, str) or name == "OK" or name not in Status.__members__:
            raise _refused(f"{where}.retryable_status_codes", f"must be names of gRPC statuses, not {each!r}")
        statuses.add(Status[name])
    return frozenset(statuses)


# -- channel options ---------------------------------------------------------------------------------------------------

_Set = Callable[[rpc.ChannelOptions, Any], rpc.ChannelOptions]


def _size(options: rpc.ChannelOptions, value: Any, *, field: str) -> rpc.ChannelOptions:
    change: dict[str, Any] = {field: _UNLIMITED if value == -1 else _whole(value)}
    return replace(options, **change)


def _ms(options: rpc.ChannelOptions, value: Any, *, field: str) -> rpc.ChannelOptions:
    change: dict[str, Any] = {field: _whole(value) / 1000}
    return replace(options, **change)


def _permit(options: rpc.ChannelOptions, value: Any) -> rpc.ChannelOptions:
    return replace(options, keepalive_without_calls=_flag(value))


def _user_agent(options: rpc.ChannelOptions, value: Any) -> rpc.ChannelOptions:
    return replace(options, user_agent=f"{value} {options.user_agent}")


def _authority(options: rpc.ChannelOptions, value: Any) -> rpc.ChannelOptions:
    return replace(options, authority=value)


def _unlimited_pings(options: rpc.ChannelOptions, value: Any) -> rpc.ChannelOptions:
    if value != 0:
        raise ValueError("0 is the only value: pings are limited by their interval")
    return options


def _service_config(options: rpc.ChannelOptions, value: Any) -> rpc.ChannelOptions:
    config = json.loads(value)
    methods = config.get("methodConfig", [])
    if (
        set(config) != {"methodConfig"}
        or len(methods) != 1
        or set(methods[0]) - {"name", "retryPolicy"}
        or methods[0].get("name") not in ([{}], None)
    ):
        raise ValueError("one methodConfig for all methods is understood, with a retryPolicy and nothing else")
    policy = {_snake(name): each for name, each in methods[0].get("retryPolicy", {}).items()}
    return replace(options, retry=_retry(policy, "channel_options.grpc.service_config", options))


_CHANNEL_OPTIONS: Final[Mapping[str, _Set]] = {
    "grpc.max_receive_message_length": partial(_size, field="max_receive_message_bytes"),
    "grpc.max_send_message_length": partial(_size, field="max_send_message_bytes"),
    "grpc.keepalive_time_ms": partial(_ms, field="keepalive_time"),
    "grpc.keepalive_timeout_ms": partial(_ms, field="keepalive_timeout"),
    "grpc.keepalive_permit_without_calls": _permit,
    "grpc.http2.min_time_between_pings_ms": partial(_ms, field="min_ping_interval"),
    "grpc.http2.max_pings_without_data": _unlimited_pings,
    "grpc.dns_min_time_between_resolutions_ms": partial(_ms, field="dns_min_interval"),
    "grpc.service_config": _service_config,
    "grpc.primary_user_agent": _user_agent,
    "grpc.default_authority": _authority,
    "grpc.ssl_target_name_override": _authority,
}
_RECONNECT: Final = {
    "grpc.initial_reconnect_backoff_ms": "initial",
    "grpc.max_reconnect_backoff_ms": "maximum",
    "grpc.min_reconnect_backoff_ms": "minimum",
}
_ENABLE_RETRIES: Final = "grpc.enable_retries"


def _pairs(value: Any) -> list[tuple[str, Any]]:
    given = () if value is None else value.items() if isinstance(value, Mapping) else value
    try:
        return [(str(name), each) for name, each in given]
    except (TypeError, ValueError) as error:
        raise _refused("channel_options", f"must be pairs of a name and a value, not {value!r}") from error


def _with_channel_options(options: rpc.ChannelOptions, pairs: list[tuple[str, Any]]) -> rpc.ChannelOptions:
    reconnect: dict[str, Any] = {}
    for name, each in pairs:
        path = f"channel_options.{name}"
        change = _CHANNEL_OPTIONS.get(name)
        try:
            if change is not None:
                options = change(options, each)
            elif name in _RECONNECT:
                reconnect[_RECONNECT[name]] = _whole(each) / 1000
            elif name == _ENABLE_RETRIES:
                _flag(each)
            else:
                known = ", ".join((*_CHANNEL_OPTIONS, *_RECONNECT, _ENABLE_RETRIES))
                raise _refused(path, "is not known", hint=f"Known are {known}.")
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
            raise _refused(path, f"cannot be {each!r}: {error}") from error
    return _with_reconnect(options, reconnect)


def _with_reconnect(options: rpc.ChannelOptions, change: dict[str, Any]) -> rpc.ChannelOptions:
    """All at once: each has to fit the others, in whatever order they come."""
    try:
        return replace(options, reconnect=replace(options.reconnect, **change))
    except ValueError as error:
        names = [name for name, field in _RECONNECT.items() if field in change]
        raise _refused(
            f"channel_options.{names[-1]}", f"does not fit the other delays of reconnecting: {error}"
        ) from error


def _whole(value: Any) -> int:
    # Floats too, where they are whole: the existing SDK has some.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError("it must be a whole number")
    return int(value)


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("it must be true or false")
    return bool(value)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _refused(where: str, rule: str, *, hint: str = "") -> ConfigurationError:
    path = f"client_config.{where}" if where else "client_config"
    return ConfigurationError(f"{path} {rule}.", hint=hint, violations=[Violation(path, rule)])
