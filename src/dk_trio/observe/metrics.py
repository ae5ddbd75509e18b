"""Metrics of a server, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._part import Part

if TYPE_CHECKING:
    from dk_trio.settings import ObserveSettings


class Metrics(Part):
    """Serves the metrics of this process at `http://METRICS_HOST:METRICS_PORT/metrics`.

    Args:
        settings: Where; `metrics_port` must not be None.
        worker: Number of this process among its siblings, from 0; added to the port.
    """

    def __init__(self, settings: ObserveSettings, worker: int = 0) -> None:
        self._settings = settings
        self._worker = worker
