"""What holds for all tests."""

import gc
import signal
from collections.abc import Generator

import hypothesis
import pytest
from tests.sizes import SOAK, size

# Their assertions are explained like those of tests; here, before any of the tests that share them imports them.
pytest.register_assert_rewrite("tests.properties.acts", "tests.properties.world")

# No test is timed, so that a machine which stands still for a moment fails none. A commit draws the same examples
# wherever it is tested, so that what passes here passes there; nights draw new ones.
hypothesis.settings.register_profile(
    "ours",
    deadline=None,
    derandomize=not SOAK,
    max_examples=size(100, 3000),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ours")


def pytest_configure() -> None:
    """A shell starts what goes on behind it with SIGINT ignored, and so would be what tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # until the tests are collected: there is no garbage in them


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The collector need not look through thousands of tests again and again: of some it was a quarter of the time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Logs of what a test has done may hold lone surrogates, as names of files do; a report goes to another process."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
