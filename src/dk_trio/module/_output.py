"""An author's output as the dict that goes on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from dk_trio.errors import InvalidOutputError

from ._context import Output
from ._models import DataModel


def output_dict(output: Output) -> dict[str, Any]:
    """An author's output as the dict that goes on the wire. Dicts are not copied, models are dumped once.

    Raises:
        InvalidOutputError: It is neither a model nor a mapping.
    """
    if isinstance(output, dict):
        return output if "root" in output else {"root": output, "annotations": {}}
    if isinstance(output, BaseModel):
        dumped = output.model_dump(mode="json")
        if isinstance(output, DataModel) or "root" in dumped:
            return dumped
        return {"root": dumped, "annotations": {}}
    raise InvalidOutputError(
        f"An output is a {type(output).__name__}: {output!r:.80}.",
        hint="Send an output model, a trigger, or a dict of JSON values.",
    )
