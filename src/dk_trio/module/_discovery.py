"""Finding the files of an author's triggers: importing one registers its handlers with the module class it names.

Only what lies inside of the packages that the author named is ever imported. What cannot be imported does not vanish:
`TrioModule.discover` tells every file with its cause, before anything is served (reference, 2.4).
"""

from __future__ import annotations

import fnmatch
import importlib
import stat
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from dk_trio.errors import DiscoveryError, DiscoverySecurityError, DkTrioError

MAX_FILE_SIZE: Final = 1024 * 1024
"""Bytes; a file of triggers is written by hand, so one that is larger is something else."""

_ESCAPES = ("..", "/", "\\", "\0")
_NOT_THE_AUTHORS = (str(Path(__file__).parents[1]), str(Path(importlib.__file__).parent))


class ModuleDiscoverer:
    """Imports the files of triggers in some packages and in the packages below them.

        class MyModule(TrioModule[MyInput, MyOutput, MySetup]):
            triggers_discoverer = ModuleDiscoverer(packages=["my_module.triggers"])

    Files and folders named like tests (`test_x`, `x_test`, `conftest`) are left alone.

    Args:
        packages: Dotted names. Importing them must be possible where the module runs.
        file_pattern: Names of the files, as a shell writes them; ends in `.py`, has no folders.
        max_file_size: Bytes; larger files are refused.

    Raises:
        DiscoveryError: No packages.
        DiscoverySecurityError: A package or the pattern could reach outside of the packages.
    """

    def __init__(
        self, packages: Sequence[str], file_pattern: str = "*_trigger.py", max_file_size: int = MAX_FILE_SIZE
    ) -> None:
        if isinstance(packages, str) or not packages:
            raise DiscoveryError(
                f"ModuleDiscoverer got packages={packages!r}.", hint='Give a list, such as ["my_module.triggers"].'
            )
        for package in packages:
            if not all(part.isidentifier() for part in str(package).split(".")):
                raise DiscoverySecurityError(
                    f"{package!r} is not the dotted name of a package.", hint='Write it as "my_module.triggers".'
                )
        if not file_pattern.endswith(".py") or any(text in file_pattern for text in _ESCAPES):
            raise DiscoverySecurityError(
                f"The file pattern {file_pattern!r} is not the name of Python files in one folder.",
                hint='Write a pattern such as "*_trigger.py": it ends in .py and has neither "..", "/", "\\" nor NUL.',
            )
        self.packages = tuple(packages)
        self.file_pattern = file_pattern
        self.max_file_size = max_file_size

    def __repr__(self) -> str:
        return f"ModuleDiscoverer(packages={list(self.packages)}, file_pattern={self.file_pattern!r})"

    def discover_modules(self) -> dict[str, bool]:
        """Import every file; those that are imported already are left alone.

        Returns:
            Dotted name -> whether it could be imported. `explain` has the causes; packages are listed when they failed.
        """
        return {name: cause is None for name, cause in self.explain().items()}

    def explain(self, registrations: Callable[[ModuleType], int] | None = None) -> dict[str, str | None]:
        """Import every file, and say why when it failed.

        Args:
            registrations: How many handlers are registered that come from this file, as a module; zero is a failure.

        Returns:
            Dotted name -> cause with file and line, or None, in the order of the packages and file names.
        """
        results: dict[str, str | None] = {}
        for package in self.packages:
            try:
                module = importlib.import_module(package)
            except (Exception, SystemExit) as error:  # noqa: BLE001  boundary: an author's code runs here
                results[package] = _cause(error, package, ())
                continue
            # A package in the sense of Python has a path; a folder without `__init__.py` has one too.
            folders = [Path(entry).resolve() for entry in getattr(module, "__path__", ())]
            if not folders:
                results[package] = "it is a module, not a package: name the folder that holds the files"
            for folder in folders:
                for name, path in self._files(package, folder, folder):
                    results.setdefault(name, self._import(name, path, folder, registrations))
        return results

    def _files(self, package: str, folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
        for path in sorted(folder.iterdir()):
            name = f"{package}.{path.stem}"
            if _is_test(path.stem) or path.name.startswith((".", "__pycache__")):
                continue
            if fnmatch.fnmatchcase(path.name, self.file_pattern):
                yield name, path
            elif path.is_dir() and path.name.isidentifier():
                if not path.is_symlink():
                    yield from self._files(name, path, root)
                elif not path.resolve().is_relative_to(root) and any(path.glob(self.file_pattern)):
                    yield name, path  # to be refused; a link to a folder of the package holds nothing new

    def _import(
        self, name: str, path: Path, root: Path, registrations: Callable[[ModuleType], int] | None
    ) -> str | None:
        refusal = self._refusal(path, root)
        if refusal is not None:
            return f"{path}: {refusal}"
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001  boundary: an author's code runs here
            return _cause(error, str(path), (str(path), str(root)))
        if not path.samefile(module.__file__ or "/"):
            return f"{path}: {name} is another file already, {module.__file__}"
        if registrations is not None and not registrations(module):
            return f"{path}: it registers no handler: decorate one with @YourModule.register"
        return None

    def _refusal(self, path: Path, root: Path) -> str | None:
        target = path.resolve()
        if not target.is_relative_to(root):
            return f"it is a link to {target}, outside of its package"
        try:
            found = target.stat()
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if not stat.S_ISREG(found.st_mode):
            return "it is not a regular file"
        if found.st_size > self.max_file_size:
            return f"it has {found.st_size} bytes, more than max_file_size={self.max_file_size}"
        if not path.stem.isidentifier():
            return f"{path.stem!r} is not a name that can be imported"
        return None


def check_discovered(owner: str, results: dict[str, str | None]) -> None:
    """Refuse a module some of whose files failed.

    Raises:
        DiscoveryError: Names every file with its cause.
    """
    causes = [(name, cause) for name, cause in results.items() if cause is not None]
    failed = [cause if cause.startswith(f"{name}:") else f"{name}: {cause}" for name, cause in causes]
    if failed:
        files = "1 file" if len(failed) == 1 else f"{len(failed)} files"
        raise DiscoveryError(f"Of the triggers of {owner}, {files} cannot be used: {'; '.join(failed)}.")


def _is_test(stem: str) -> bool:
    return stem.startswith("test_") or stem.endswith("_test") or stem == "conftest"


def _cause(error: BaseException, what: str, places: Iterable[str]) -> str:
    """What was raised, and the author's line that raised it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    text = error.text if isinstance(error, DkTrioError) else f"{type(error).__name__}: {error}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    # The last line of the file itself, else of its package: further down are libraries that it has called.
    for place in places:
        own = [frame for frame in frames if frame.filename.startswith(place)]
        if own:
            return f"{own[-1].filename}:{own[-1].lineno}: {text}"
    outside = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_AUTHORS)]
    return f"{outside[-1].filename}:{outside[-1].lineno}: {text}" if outside else f"{what}: {text}"
