"""What every trigger handler has."""

from __future__ import annotations

from ._agui import AgUiMixin
from ._histories import FileHistoryMixin
from ._services import CostMixin


class BaseMixin(CostMixin, AgUiMixin, FileHistoryMixin):
    """Costs, `send_message`, storage, the file history and logs: what `TriggerHandler` has (reference, 2.5)."""
