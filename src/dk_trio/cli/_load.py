"""From `PATH.py[:Class]` or `package.module:Class` to a module class, with errors that show the author's own line."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from dk_trio.errors import DkTrioError, ModuleLoadError
from dk_trio.module import ArchetypeModule, ToolModule, TrioModule

# Folders whose code is not the author's: ours, the standard library, installed packages.
_LIBRARIES = (
    str(Path(__file__).parents[1]),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)

_INSTALLED = {"site-packages", "dist-packages", ".venv", "venv"}

_PATTERN = "PATH.py[:Class] or package.module:Class"


def load_module(target: str) -> type[TrioModule[Any, Any, Any, Any]]:
    """Import a module class.

    Args:
        target: A file, with the class after a colon when it holds several, or a dotted name with the class.

    Raises:
        ModuleLoadError: The file or package cannot be imported, or does not hold one such class.
    """
    place, _, name = target.partition(":")
    if _is_file(place):
        module = _import_file(Path(place))
    elif name and place:
        module = _import_name(place)
    else:
        beside = Path(f"{target}.py")
        hint = f"Write {beside}." if target and os.path.isfile(beside) else f"Write {_PATTERN}."  # noqa: PTH113  never raises
        raise ModuleLoadError(f"{target!r} names no module class.", hint=hint)
    return _class_in(module, name, place)


def folder_of(target: str) -> Path:
    """The folder whose files are the code of a module that was loaded: the file's own, or the package's."""
    place = target.partition(":")[0]
    if _is_file(place):
        return Path(place).resolve().parent
    top = sys.modules[place.partition(".")[0]]
    paths = [*getattr(top, "__path__", ())] or [str(Path(top.__file__ or "").parent)]
    return Path(paths[0]).resolve()


def authors_modules(folder: Path) -> dict[str, ModuleType]:
    """What is imported from a folder and those in it, by name; not us, and nothing that is installed there."""
    found = {}
    for name, module in [*sys.modules.items()]:
        # A folder without `__init__.py` is a package too, and has no file.
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        if not file or name == "__main__" or name.partition(".")[0] == "dk_trio":
            continue
        path = Path(file)
        if path.is_relative_to(folder) and path.suffix in {".py", ""} and not _INSTALLED & {*path.parts}:
            found[name] = module
    return found


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place


def _import_file(path: Path) -> ModuleType:
    try:
        what = "" if path.is_file() else "is not a file" if path.exists() else "does not exist"
        path = path if what else path.resolve()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    if what:
        raise ModuleLoadError(f"{path} {what}.", hint=f"Give {_PATTERN}.")
    _search_first(path.parent)  # as `python PATH.py` does: modules beside the file can be imported by it
    # A file called trio.py must not become trio for everybody else.
    others = (f"dk_trio_module_{path.stem}{number or ''}" for number in itertools.count())
    name = next(name for name in itertools.chain([path.stem], others) if name not in sys.modules)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleLoadError(f"{path} is not a Python file.", hint=f"Give {_PATTERN}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: pydantic looks up annotations there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # boundary: an author's file runs while it is imported
        sys.modules.pop(name, None)
        raise _author_error(error, str(path)) from error
    return module


def _import_name(name: str) -> ModuleType:
    try:
        _search_first(Path.cwd())  # as `python -m` does
    except OSError as error:
        raise ModuleLoadError(
            f"{name} is looked for in the working directory, which cannot be used: {error.strerror}.",
            hint="Go to another one.",
        ) from None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModuleLoadError(
                f"There is no Python module {error.name!r}.",
                hint="Run this where it can be imported, or give the path of a file ending in .py.",
            ) from None
        raise _author_error(error, name) from error
    except (Exception, SystemExit) as error:  # boundary: an author's package runs while it is imported
        raise _author_error(error, name) from error


def _search_first(folder: Path) -> None:
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]


def _author_error(error: BaseException, what: str) -> ModuleLoadError:
    """The line that failed, without the frames of the import system and of ours."""
    if isinstance(error, SyntaxError) and error.filename:
        line = (error.text or "").strip()
        where = f'{error.filename}, line {error.lineno}: "{line}"'
    else:
        # The author's last line, not that of a library which it called.
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_authors(frame.filename)]
        where = f'{own[-1].filename}, line {own[-1].lineno}: "{own[-1].line}"' if own else what
    if isinstance(error, DkTrioError):
        text = error.text
    else:
        text = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    return ModuleLoadError(f"{what} cannot be imported: {text} ({where}).")


def _is_authors(filename: str) -> bool:
    return not filename.startswith(("<", *_LIBRARIES))


def _class_in(module: ModuleType, name: str, place: str) -> type[TrioModule[Any, Any, Any, Any]]:
    classes = {
        attribute: value
        for attribute, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, TrioModule) and value.__module__ == module.__name__
    }
    if name:
        value = getattr(module, name, None)
        if isinstance(value, type) and issubclass(value, TrioModule):
            return value
        what = "has no class" if value is None else "has a name"
        rest = "." if value is None else ", but it is not a module class (a subclass of TrioModule)."
        found = f"It has {_names(classes)}." if classes else "It has no module class at all."
        raise ModuleLoadError(f"{place} {what} {name!r}{rest}", hint=found)
    # A base class beside the class that derives from it is not meant.
    bases = {base for value in classes.values() for base in value.__mro__[1:]}
    leaves = [value for value in classes.values() if value not in bases]
    if len(leaves) == 1:
        return leaves[0]
    if leaves:
        raise ModuleLoadError(
            f"{place} holds {len(leaves)} module classes: {_names(classes)}.",
            hint=f"Say which: {place}:{leaves[0].__name__}.",
        )
    imported = [
        attribute
        for attribute, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, TrioModule)
        and value not in {TrioModule, ToolModule, ArchetypeModule}
    ]
    hint = (
        f"It imports {', '.join(imported)}; to serve that, write {place}:{imported[0]}."
        if imported
        else "Derive a class from dk_trio.TrioModule in it."
    )
    raise ModuleLoadError(f"{place} holds no module class.", hint=hint)


def _names(classes: dict[str, Any]) -> str:
    return ", ".join(sorted(classes))
