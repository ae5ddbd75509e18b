"""What the exchange tells is part of what is tested."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _all_is_told(caplog):
    caplog.set_level(logging.INFO, "dk_trio.signals")
