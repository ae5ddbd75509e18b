"""Setups from a file, setups that were configured, and the default for the rest: what a module needs on one machine.

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dk_trio.errors import DkTrioError, SetupFileError, SetupNotFoundError
from dk_trio.services.setup import PREFIX, SetupVersion, bare

_log = logging.getLogger("dk_trio.setup")

_RECORD_KEYS = frozenset({"content", "version", "id"})

# Setup ids whose default was logged. Callers choose the ids, so the set needs a bound; beyond it nothing is logged.
_LOGGED_MAX = 100

# Configured setups that are kept: callers choose their ids too. Nobody configures so many by hand.
CONFIGURED_MAX: Final = 10_000


class LocalSetup:
    """Setups in memory: a `SetupStore`, so that a setup that was configured lasts as long as the process.

    Args:
        setups: By setup id, with or without prefix.
        default: Content for ids that are not in `setups`; None makes such an id `SetupNotFoundError`.
        default_id: The id under which other modules of this process find the default.
        missing_hint: Why there is no default, for the error.
    """

    def __init__(
        self,
        setups: Mapping[str, SetupVersion] | None = None,
        *,
        default: Mapping[str, Any] | None = None,
        default_id: str = "",
        missing_hint: str = "",
    ) -> None:
        self._setups = {bare(setup_id): setup for setup_id, setup in (setups or {}).items()}
        self._configured: OrderedDict[str, SetupVersion] = OrderedDict()  # least recently used first
        self._default = default
        self._default_id = default_id
        self._missing_hint = missing_hint
        self._logged: set[str] = set()

    def __repr__(self) -> str:
        default = "none" if self._default is None else "yes"
        return f"<LocalSetup {len(self._setups)} setups, {len(self._configured)} configured, default {default}>"

    async def get_setup(self, setup_id: str, mission_id: str) -> SetupVersion:
        """See `SetupSource.get_setup`. Answers from memory, without a checkpoint."""
        key = bare(setup_id)
        setup = self._configured.get(key)
        if setup is not None:
            self._configured.move_to_end(key)
            return setup
        setup = self._setups.get(key)
        if setup is not None:
            return setup
        if self._default is None:
            known = ", ".join(sorted(self._setups)[:10]) or "none"
            raise SetupNotFoundError(f"Setup {setup_id!r} not found (known: {known}).", hint=self._missing_hint)
        if setup_id not in self._logged and len(self._logged) < _LOGGED_MAX:
            self._logged.add(setup_id)
            _log.info("setup %r is not stored here: the module's default setup is used", setup_id)
        return SetupVersion(id="setup_versions:default", setup_id=setup_id, content=self._default)

    def ids(self) -> list[str]:
        """The ids that are known by name, with their prefix."""
        known = {**self._setups, **self._configured}
        return [PREFIX + key for key in known] + ([self._default_id] if self._default_id else [])

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
