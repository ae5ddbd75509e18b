"""One browser for the session; tests that draw a form skip where it is missing."""

import pytest
from tests import npm
from tests.forms.browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    try:
        return Browser(tmp_path_factory.mktemp("browser"))
    except npm.Missing as missing:
        pytest.skip(str(missing))
