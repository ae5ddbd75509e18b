"""Setups that were configured, those of a file, those that were stored, and the default for the rest, in this order.

What this process was told goes first, then what its operator gives it, then what was stored at any time.

The file is a JSON object by setup id. An entry is the content itself, or a record around it, recognised by its key
`content` and by having no keys but these three:

    {
      "setups:shout": {"prefix": "!"},
      "setups:quiet": {"content": {"prefix": ""}, "version": "3", "id": "setup_versions:quiet-3"}
    }
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dk_trio.errors import DkTrioError, SetupFileError, SetupNotFoundError, Violation
from dk_trio.services.registry import bare_module_id
from dk_trio.services.setup import PREFIX, SetupService, SetupVersion, bare
from dk_trio.services.stored_setups import owner_of, stored_setup

_log = logging.getLogger("dk_trio.setup")

_RECORD_KEYS = frozenset({"content", "version", "id"})

DEFAULT_VERSION: Final = "setup_versions:default"
"""The id of what jobs get whose setup nobody knows."""

# Setup ids of which was logged why they get the default. Callers choose the ids, so the set needs a bound; beyond it
# nothing is logged.
_LOGGED_MAX = 100

# Configured setups that are kept: callers choose their ids too. Nobody configures so many by hand.
CONFIGURED_MAX: Final = 10_000


class LocalSetup:
    """Setups of one module: a `SetupStore`, so that a setup that was configured lasts as long as the process.

    Args:
        setups: By setup id, with or without prefix.
        service: Where stored setups are; those of other modules do not count. None: there are none.
        module_id: The module; `service` knows by it whose setups they are.
        name: The module's name, for setups that are stored when they are configured.
        default: Content for ids that are not in `setups`; None makes such an id `SetupNotFoundError`.
        default_id: The id under which other modules of this process find the default.
        missing_hint: Why there is no default, for the error.
    """

    def __init__(
        self,
        setups: Mapping[str, SetupVersion] | None = None,
        *,
        service: SetupService | None = None,
        module_id: str = "",
        name: str = "",
        default: Mapping[str, Any] | None = None,
        default_id: str = "",
        missing_hint: str = "",
    ) -> None:
        self._setups = {bare(setup_id): setup for setup_id, setup in (setups or {}).items()}
        self._configured: OrderedDict[str, SetupVersion] = OrderedDict()  # least recently used first
        self._service = service
        self._module_id = module_id
        self._name = name
        self._default = default
        self._default_id = default_id
        self._missing_hint = missing_hint
        self._logged: set[str] = set()

    def __repr__(self) -> str:
        default = "none" if self._default is None else "yes"
        return f"<LocalSetup {len(self._setups)} setups, {len(self._configured)} configured, default {default}>"

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        """See `SetupSource.get_setup`. Without a service it answers from memory, without a checkpoint."""
        key = bare(setup_id)
        setup = self._configured.get(key)
        if setup is not None:
            self._configured.move_to_end(key)
            return setup
        setup = self._setups.get(key)
        if setup is not None:
            return setup
        setup = await self._stored(setup_id)
        if setup is not None:
            return setup
        if self._default is None:
            known = ", ".join(sorted(self._setups)[:10]) or "none"
            raise SetupNotFoundError(
                f"Setup {setup_id!r} not found (known: {known}).",
                hint=self._missing_hint,
                violations=[Violation("setup_id", f"must be the id of a setup, not {setup_id!r}")],
            )
        self._log_once(logging.INFO, setup_id, "is not stored here: the module's default setup is used")
        return SetupVersion(id=DEFAULT_VERSION, setup_id=setup_id, content=self._default)

    async def _stored(self, setup_id: str) -> SetupVersion | None:
        setup = await stored_setup(self._service, setup_id)
        if setup is None:
            return None
        if bare_module_id(setup.module_id) != bare_module_id(self._module_id):
            whose = f"is stored for the module {setup.module_id!r}, and does not count for {self._module_id!r}"
            self._log_once(logging.WARNING, setup_id, whose)
            return None
        version = setup.current_setup_version
        if version is None:
            raise SetupNotFoundError(
                f"Setup {setup_id!r} is stored without a version.", hint="Make one with create_setup_version."
            )
        return SetupVersion(id=version.id, setup_id=setup_id, content=version.content, version=version.version)

    def _log_once(self, level: int, setup_id: str, what: str) -> None:
        if setup_id not in self._logged and len(self._logged) < _LOGGED_MAX:
            self._logged.add(setup_id)
            _log.log(level, "setup %r %s", setup_id, what)

    async def store(self, version: SetupVersion) -> bool:
        """Store a setup that was configured, if the service wants it: it is durable when this returns.

        Returns:
            Whether it is stored. If so, `put` is not needed.

        Raises:
            SetupServiceError: It cannot be stored.
        """
        if not getattr(self._service, "store_configured", False):
            return False
        put: Callable[..., Awaitable[object]] = self._service.put_configured  # type: ignore[union-attr]
        await put(version, module_id=self._module_id, name=self._name)
        self.forget(version.setup_id)
        if bare(version.setup_id) in self._setups:  # which would go before what is stored
            self.put(version)
        return True

    def forget(self, setup_id: str) -> None:
        """What is stored is newer than what was configured here; unless the file says what this setup is."""
        key = bare(setup_id)
        if key not in self._setups:
            self._configured.pop(key, None)

    def ids(self) -> list[str]:
        """The ids that are known by name, with their prefix; those that are stored are not among them."""
        known = {**self._setups, **self._configured}
        return [PREFIX + key for key in known] + ([self._default_id] if self._default_id else [])

    def knows(self, setup_id: str) -> bool:
        """Whether `ids` has it."""
        key = bare(setup_id)
        return key in self._configured or key in self._setups or (bool(key) and key == bare(self._default_id))

    async def owner(self, setup_id: str) -> str:
        """The module that a stored setup is for; empty when none is stored under this id.

        Raises:
            SetupUnavailableError: It cannot be told now.
        """
        return await owner_of(self._service, setup_id)

    def adopt(self, other: LocalSetup) -> None:
        """What was configured in `other` is configured here."""
        self._configured = other._configured

    def put(self, version: SetupVersion) -> None:
        """See `SetupStore.put`. It goes before what the file says, which is not written.

        The last `CONFIGURED_MAX` are kept; beyond that the one that was not used for longest is lost, with a warning.
        """
        key = bare(version.setup_id)
        self._configured[key] = version
        self._configured.move_to_end(key)
        if len(self._configured) > CONFIGURED_MAX:
            lost, _ = self._configured.popitem(last=False)
            _log.warning("setup %r, configured here, is forgotten: more than %d were configured", lost, CONFIGURED_MAX)


def read_setups(path: Path, *, check: Callable[[Mapping[str, Any], str], object]) -> dict[str, SetupVersion]:
    """Read a file of setups.

    Args:
        path: The file.
        check: Called with the content and id of each setup; raises a `DkTrioError` when it does not fit the module.

    Raises:
        SetupFileError: Names the file and what in it is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupFileError(f"The setup file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise SetupFileError(f"The setup file {path} is not UTF-8 text: byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise SetupFileError(
            f"The setup file {path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    if not isinstance(data, dict):
        raise SetupFileError(
            f"The setup file {path} holds a {type(data).__name__}.", hint='It must be {"setup id": {content}, ...}.'
        )
    setups = {}
    for setup_id, entry in data.items():
        setup = _setup(path, setup_id, entry)
        try:
            check(setup.content, setup_id)
        except DkTrioError as error:
            raise SetupFileError(f"In {path}: {error.message}", hint=error.hint) from error
        setups[bare(setup_id)] = setup
    return setups


def _setup(path: Path, setup_id: str, entry: object) -> SetupVersion:
    where = f"In {path}, setup {setup_id!r}"
    if not isinstance(entry, dict):
        raise SetupFileError(f"{where} is a {type(entry).__name__}.", hint="It must be a JSON object.")
    record = "content" in entry and entry.keys() <= _RECORD_KEYS and isinstance(entry["content"], dict)
    content = entry["content"] if record else entry
    version = str(entry.get("version", "1")) if record else "1"
    version_id = str(entry["id"]) if record and "id" in entry else f"setup_versions:{bare(setup_id)}-{version}"
    return SetupVersion(id=version_id, setup_id=setup_id, content=content)
