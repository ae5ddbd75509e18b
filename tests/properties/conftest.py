"""What the tests of properties share."""

import gc
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.properties.acts", "tests.properties.world")

from .world import Complaints  # noqa: E402  after the line above


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """These tests are thousands of short runs; looking through all that was imported costs each a sixth of its time."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What the package complains of during the test."""
    with Complaints() as complaints:
        yield complaints
