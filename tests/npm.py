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
    """A copy of the folder `source` with the packages of its package.json; `scripts` of it were run once.

    Raises:
        Missing: node or npm is not here, or npm failed.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("node or npm is not installed")
    files = sorted(path for path in source.iterdir() if path.is_file())
    content = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "dk-trio-tests" / f"{source.name}-{content[:12]}"
    if (folder / "installed").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copy(path, folder)
    for command in (INSTALL, *(f"npm run --silent {script}" for script in scripts)):
        try:
            done = subprocess.run(
                command.split(), cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"npm did not finish within {TIMEOUT:.0f} s") from None
        if done.returncode:
            raise Missing(f"`{command}` failed: {(done.stderr or done.stdout).strip()[-300:]}")
    (folder / "installed").touch()
    return folder
