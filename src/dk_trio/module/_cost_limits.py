"""The limits that a caller sets for the cost of its job: `cost_limits` beside `root` in the input (reference, 2.6)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from dk_trio.errors import InvalidInputError

from ._validation import explain, rows_of, violations_of

if TYPE_CHECKING:
    from dk_trio.services.cost import CostLimit


def parse_cost_limits(data: Mapping[str, Any]) -> Sequence[CostLimit]:
    """The limits in an input; empty without any.

    Raises:
        InvalidInputError: Names each field that does not fit, and why.
    """
    given = data.get("cost_limits")
    if not given:
        return ()
    try:
        return _adapter().validate_python(given)
    except ValidationError as error:
        rows = rows_of(error, given)
        raise InvalidInputError(
            f"The cost limits do not fit: {explain(rows, 'cost_limits')}.",
            violations=violations_of(rows, "input.cost_limits"),
        ) from None


@functools.cache
def _adapter() -> TypeAdapter[list[CostLimit]]:
    from dk_trio.services.cost import CostLimit  # with the first caller that sets one

    return TypeAdapter(list[CostLimit])
