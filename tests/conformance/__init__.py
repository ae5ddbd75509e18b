"""What a service promises, checked of every strategy behind it: one suite, many backends.

A behaviour is a function `async def test_...(jobs: Jobs)` of `storage.py`, `cost.py`, ... It gets jobs whose services
are behind some backend of `backends.py`, and is run with each of them by `test_conformance.py`. Where the contract
forces a difference, `only` names the side that a behaviour is true of, and says why: the page on remote mode lists
these.
"""

import pytest

SERVICES = ("storage", "cost", "filesystem", "registry", "setup", "user_profile")

# They are no test modules by their names, and their asserts shall say as much.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in (*SERVICES, "kit")))
