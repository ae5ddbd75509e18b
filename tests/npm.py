"""Node packages that tests need: installed once, in a cache outside the repository, kept between sessions."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

TIMEOUT = 120.0  # seconds for npm, the first time on a machine
INSTALL = "npm install --no-package-lock --no-audit --no-fund --loglevel=error --fetch-retries=0 --fetch-timeout=20000"


class Missing(Exception):
    """Something that a test needs is not installed here; the text says what to install."""


def installed(source: Path, *scripts: str) -> Path:
    """A copy of the folder `source` with the packages of its package.json, in which `scripts` of it were run.

    Raises:
        Missing: node or npm is not here, or npm failed.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("node or npm is not installed")
    package = hashlib.sha256((source / "package.json").read_bytes()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "dk-trio-tests" / f"{source.name}-{package[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    if not (folder / "installed").exists():
        _run(INSTALL, folder)
        (folder / "installed").touch()
    for script in scripts:
        _run(f"npm run --silent {script}", folder)
    return folder


def _run(command: str, folder: Path) -> None:
    try:
        done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"`{command}` did not finish within {TIMEOUT:.0f} s") from None
    if done.returncode:
        raise Missing(f"`{command}` failed: {(done.stderr or done.stdout).strip()[-300:]}")
