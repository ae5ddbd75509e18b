from pathlib import Path

import pytest
import trustme

from .kit import Files


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Files:
    return Files(tmp_path, authority)
