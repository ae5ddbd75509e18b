"""Spans of RPCs, jobs, services and calls of other modules, for OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._part import Part

if TYPE_CHECKING:
    from dk_trio.settings import ObserveSettings


class Traces(Part):
    """Sends spans to an OTLP collector.

    Args:
        settings: Where, and how many; `traces_endpoint` must not be None.
    """

    def __init__(self, settings: ObserveSettings) -> None:
        self._settings = settings
