"""The rules of the contract, and what becomes of a request that breaks one."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from dk_trio.errors import RequestError, Violation
from dk_trio.pb.validation import Violation as Breach
from dk_trio.pb.validation import validate

if TYPE_CHECKING:
    from dk_trio.pb import Message

    from ._options import ValidateMode

_log = logging.getLogger("dk_trio.provider")

_INDEX: Final = re.compile(r"\[[^\]]*\]")
_SHOWN: Final = 80
_LISTED: Final = 100  # violations of one request: more than anybody reads, and as many as the trailers hold


@dataclass(frozen=True, slots=True)
class ValidationStatistics:
    """What was found so far.

    Attributes:
        refused: Requests that were refused for a rule.
        broken: How often each rule was broken, by `Service.Method field rule`.
    """

    refused: int
    broken: Mapping[str, int]


class Validation:
    """Looks at each request, see `ProviderOptions.validate`."""

    def __init__(self, mode: ValidateMode) -> None:
        self._mode = mode
        self._refused = 0
        self._broken: Counter[str] = Counter()  # bounded by the contract: its methods, fields and rules

    def __repr__(self) -> str:
        return f"<Validation {self._mode}, {self._broken.total()} rules broken>"

    def statistics(self) -> ValidationStatistics:
        """Counts since the provider was made."""
        return ValidationStatistics(self._refused, MappingProxyType(dict(self._broken)))

    def check(self, path: str, request: Message, peer: Any) -> None:
        """Look at a request.

        Args:
            path: `/package.Service/Method`.
            request: The request.
            peer: Who has sent it.

        Raises:
            RequestError: It breaks a rule, and rules are strict. Names every field, rule and value.
        """
        if self._mode == "off":
            return
        breaches = validate(request)
        if not breaches:
            return
        _, service, method = path.split("/")
        where = f"{service.rpartition('.')[2]}.{method}"
        for breach in breaches:
            kind = f"{where} {_INDEX.sub('[]', breach.field_path)} {breach.rule}"
            self._broken[kind] += 1
            if self._broken[kind] == 1 and self._mode == "warn":
                _log.warning(
                    "%s of the peer %s breaks a rule of the contract, and is served: %s %s. This is told once.",
                    where,
                    peer.addr(),
                    breach.field_path,
                    _told(breach),
                )
        if self._mode == "strict":
            self._refused += 1
            first = "; ".join(f"{breach.field_path} {_told(breach)}" for breach in breaches[:3])
            more = f" and {len(breaches) - 3} more" if len(breaches) > 3 else ""
            raise RequestError(
                f"{where} breaks the rules of the contract: {first}{more}.",
                violations=[Violation(breach.field_path, _told(breach)) for breach in breaches[:_LISTED]],
            )


def _told(breach: Breach) -> str:
    """The rule, its name, and the value."""
    value = ascii(breach.value)
    shown = value if len(value) <= _SHOWN else f"{value[: _SHOWN - 3]}..."
    return f"{breach.message} ({breach.rule}), got {shown}"
