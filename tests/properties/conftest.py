"""What the tests of properties share."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.properties.acts", "tests.properties.world")

from .world import Complaints  # noqa: E402  after the line above


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What the package complains of during the test."""
    with Complaints() as complaints:
        yield complaints
