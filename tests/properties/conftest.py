"""What the tests of properties share."""

import gc
from collections.abc import Iterator

import pytest

from .world import Complaints


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
