"""A type checker refuses wrong module definitions, line by line, and accepts right ones."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RIGHT = (HERE / "right_definitions.py", *sorted((ROOT / "examples").glob("*.py")))
WRONG = HERE / "wrong_definitions.py"

_ERROR = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")
_MARK = re.compile(r"# expect: (?P<codes>.+)$")

Found = set[tuple[str, int, str]]


@pytest.fixture(scope="module")
def errors() -> Found:
    """File, line and code of what mypy finds in all of them. One run: it has to read all that the package imports."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed: it comes with the extra `test`")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", "--show-error-codes"]
    # The cache of `make check` is of no use here: its options are others.
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'definitions'}"
    run = subprocess.run(
        [*command, cache, "--follow-imports=silent", *map(str, (*RIGHT, WRONG))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    found = set()
    for line in run.stdout.splitlines():
        if ": error: " in line:
            match = _ERROR.match(line)
            assert match, line
            found.add((Path(match["file"]).name, int(match["line"]), match["code"]))
    return found


def expected() -> Found:
    marks = set()
    for number, line in enumerate(WRONG.read_text().splitlines(), 1):
        match = _MARK.search(line)
        if match:
            marks |= {(WRONG.name, number, code.strip()) for code in match["codes"].split(",")}
    return marks


def test_wrong_definitions_fail_on_the_lines_that_are_wrong(errors: Found) -> None:
    assert len(expected()) > 20
    found = {error for error in errors if error[0] == WRONG.name}
    assert sorted(expected() - found) == [], "wrong, but accepted"
    assert sorted(found - expected()) == [], "refused, but not marked"


def test_right_definitions_and_the_examples_pass(errors: Found) -> None:
    assert len(RIGHT) > 5
    assert sorted(error for error in errors if error[0] != WRONG.name) == []
