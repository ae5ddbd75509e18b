"""Fixtures of the channel's tests."""

from __future__ import annotations

import pytest

from . import channel_kit


@pytest.fixture(params=["stub", "steps"])
def both_ways(request, monkeypatch):
    """Make unary calls as generated stubs do, all at once, and step by step as grpclib's interface has it."""
    monkeypatch.setattr(channel_kit, "AT_ONCE", request.param == "stub")
