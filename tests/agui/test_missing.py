"""Without the extra: nothing is imported before it is needed, and then the error names the remedy."""

import subprocess
import sys

import pytest
from grpclib.const import Status

from dk_trio.errors import ConfigurationError
from dk_trio.module.agui import AgUiMissingError


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_are_written_without_importing_agui() -> None:
    loaded = run(
        "import sys, dk_trio, dk_trio.module, dk_trio.module.events, dk_trio.module.mixins\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'ag_ui'])"
    )
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("caught", ["dk_trio.errors.ConfigurationError", "ImportError"])
def test_missing_package_is_an_error_that_names_the_extra(caught: str) -> None:
    told = run(
        "import sys; sys.modules['ag_ui'] = None\n"
        "import dk_trio.errors\n"
        f"try:\n    import dk_trio.module.agui\nexcept {caught} as error:\n    print(error.text)"
    )
    assert "ag-ui-protocol" in told
    assert "pip install 'dk-trio[agui]'" in told


def test_error_is_a_row_of_the_table() -> None:
    assert issubclass(AgUiMissingError, ConfigurationError)
    error = AgUiMissingError("not there", hint="Install it.")
    assert (error.code, error.status, error.text) == (
        "AGUI_MISSING",
        Status.FAILED_PRECONDITION,
        "not there Install it.",
    )
