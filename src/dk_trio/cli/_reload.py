"""`serve --reload`: a module's code is loaded anew in this process when one of its files changes.

Everything stays but the code: port, connections, data, jobs. A call that began before ends with the code that it began
with; a new one runs the new code. Code that cannot be loaded, or not be served, is told in one paragraph, and the old
code serves on.

What is dropped and imported anew is all that was imported from the module's folder and the folders in it: Python has no
way to import one file anew and have those that import it see that. Objects that the old code has made stay of the old
classes, so state that is to outlive a change belongs into a service.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Self

import trio

from dk_trio.boundary import unwrapped
from dk_trio.errors import DkTrioError, MissingPackageError, ModuleLoadError
from dk_trio.hosting import Edition, define

from ._load import authors_modules, folder_of, load_module

if TYPE_CHECKING:
    from watchfiles.main import FileChange

    from dk_trio.server import ModuleServer

_log = logging.getLogger("dk_trio.reload")

STEP: Final = 50
"""Milliseconds without a change after which what has changed is told: editors write several times."""
DEBOUNCE: Final = 1000
"""Milliseconds after which it is told although there are changes all the time."""
SLOW: Final = 10.0
"""Seconds after which it is told that code is still being loaded."""
LOOK_FOR: Final = 1000
"""Milliseconds after which a look is begun again; it is ended by an event, so this only bounds a lost one."""


class Reloader:
    """Loads the modules of a server anew.

    Args:
        server: The server.
        targets: What was loaded, by id of the module: files or dotted names, see `load_module`.
    """

    def __init__(self, server: ModuleServer, targets: Mapping[str, str]) -> None:
        self._server = server
        self._targets = targets
        self._folders = {key: folder_of(target) for key, target in targets.items()}
        self._failed = False

    def __repr__(self) -> str:
        return f"<Reloader of {', '.join(self._targets.values())}>"

    @property
    def folders(self) -> list[Path]:
        """Where changes count."""
        return sorted({*self._folders.values()})

    async def run(self) -> None:
        """Look for changes until cancelled.

        Raises:
            MissingPackageError: watchfiles is not installed.
        """
        ended = threading.Event()
        changes = _changes(self.folders, ended)
        try:
            while True:
                # Left to itself when this is cancelled, for the event ends it. Its own async function does not see a
                # cancellation for seconds.
                found = await trio.to_thread.run_sync(next, changes, abandon_on_cancel=True)
                if found:
                    await self.apply(*_sorted(found))
        finally:
            ended.set()

    async def apply(self, changed: Collection[Path], added: Collection[Path] = ()) -> bool:
        """Load what these files have changed.

        Args:
            changed: Files that were written, or are gone.
            added: Files that are new: triggers may be found in them.

        Returns:
            Whether other code is served now.
        """
        files = {*added} if self._failed else self._imported() & {*changed} | {*added}
        if self._failed:
            files |= {*changed}  # what was imported when an import failed is not known
        keys = [key for key, folder in self._folders.items() if any(path.is_relative_to(folder) for path in files)]
        if not keys:
            return False
        began, running = trio.current_time(), sum(session.running for session in self._server.jobs)
        names = ", ".join(self._targets[key] for key in keys)
        what = ", ".join(sorted(path.name for path in files))
        try:
            with _Imports(self._folders[key] for key in keys) as imports:
                async with unwrapped(), trio.open_nursery() as nursery:
                    nursery.start_soon(_tell_slow, names)
                    # Left to itself at the end of the server: an import may never return.
                    editions = await trio.to_thread.run_sync(self._load, keys, files, imports, abandon_on_cancel=True)
                    nursery.cancel_scope.cancel()
                await self._server.replace(editions)
                imports.keep()
        except DkTrioError as error:
            self._failed = True
            _log.error("%s was not reloaded (%s), the code before serves on: %s", names, what, error.text)
            return False
        except Exception:  # noqa: BLE001  boundary: an author's class, and what it says of itself, may be anything
            self._failed = True
            _log.exception("%s was not reloaded (%s), the code before serves on", names, what)
            return False
        self._failed = False
        took = trio.current_time() - began
        _log.info("%s reloaded in %.2f s (%s); jobs that finish on the code before: %d", names, took, what, running)
        return True

    def _load(self, keys: Collection[str], files: Collection[Path], imports: _Imports) -> dict[str, Edition]:
        """In a thread: calls go on while the author's files run."""
        for path in files:
            # Python takes a compiled file for that of a source of the same size that was written in the same second.
            with contextlib.suppress(OSError, NotImplementedError):
                Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        imports.drop()
        editions = {}
        for key in keys:
            module = self._server.modules[key]
            try:
                edition = module.prepare(define(load_module(self._targets[key]), self._server.settings))
            except DkTrioError:
                raise
            except Exception as error:  # boundary: an author's class says what it is by code
                raise ModuleLoadError(
                    f"{self._targets[key]} cannot be served: {type(error).__name__}: {error}."
                ) from error
            module.check(edition)
            editions[key] = edition
        return editions

    def _imported(self) -> set[Path]:
        modules = [module for folder in self.folders for module in authors_modules(folder).values()]
        return {Path(file).resolve() for module in modules if (file := getattr(module, "__file__", None))}


async def _tell_slow(names: str) -> None:
    await trio.sleep(SLOW)
    _log.warning(
        "%s is still being loaded after %g s: it waits for something when it is imported. The code before serves on; "
        "other changes are looked at when this has ended, or start the server again",
        names,
        SLOW,
    )


class _Imports:
    """What is imported from some folders: dropped inside the block, and back at its end unless it is told `keep`."""

    def __init__(self, folders: Iterator[Path]) -> None:
        self._folders = [*folders]
        self._dropped: dict[str, ModuleType] | None = None

    def __enter__(self) -> Self:
        return self

    def drop(self) -> None:
        self._dropped = self._there()
        for name in self._dropped:
            del sys.modules[name]
        importlib.invalidate_caches()

    def keep(self) -> None:
        self._dropped = None

    def _there(self) -> dict[str, ModuleType]:
        return {name: module for folder in self._folders for name, module in authors_modules(folder).items()}

    def __exit__(self, *_: object) -> None:
        if self._dropped is None:
            return
        for name in self._there():
            del sys.modules[name]
        sys.modules.update(self._dropped)


def _changes(folders: Collection[Path], ended: threading.Event) -> Iterator[AbstractSet[FileChange]]:
    """What changes in some folders, time by time; nothing now and then."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise MissingPackageError(
            "--reload needs the package watchfiles.", hint="Install it: pip install 'dk-trio[reload]'."
        ) from None
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of each change, and of each second without
    return watch(
        *folders,
        watch_filter=PythonFilter(),
        debounce=DEBOUNCE,
        step=STEP,
        stop_event=ended,
        rust_timeout=LOOK_FOR,
        yield_on_timeout=True,
        raise_interrupt=False,
    )


def _sorted(changes: AbstractSet[FileChange]) -> tuple[set[Path], set[Path]]:
    """Files that have changed, and new ones."""
    from watchfiles import Change

    files = [(kind, Path(path).resolve()) for kind, path in changes]
    added = {path for kind, path in files if kind is Change.added}
    return {path for _, path in files} - added, added
