"""What a mixin keeps for the length of a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from dk_trio.module._context import ModuleContext

KeptT = TypeVar("KeptT")


def kept(context: ModuleContext, name: str, make: Callable[[], KeptT]) -> KeptT:
    """The object of this name on the context, made when it is first asked for."""
    room = vars(context.helpers)
    name = f"_dk_trio_{name}"  # beside what the author keeps there
    if name not in room:
        room[name] = make()
    found: KeptT = room[name]
    return found
