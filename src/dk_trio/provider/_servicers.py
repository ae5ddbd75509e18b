"""The services of the provider: one line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .storage import StorageServicer

if TYPE_CHECKING:
    from ._base import Servicer

SERVICERS: Final[tuple[type[Servicer], ...]] = (StorageServicer,)
