"""What the tests of properties share."""

from collections.abc import Iterator

import pytest

from .world import Complaints


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What the package complains of during the test."""
    with Complaints() as complaints:
        yield complaints
