"""Stored setups, searched for with what is registered of their modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dk_trio.services.registry import MODULE_PREFIX, SETUP_PREFIX, bare_module_id

from .registrations import marks, pattern
from .work import Statement, Value, Work

# Setups keep the id of their module as it was told, registrations without prefix.
_MODULE: Final = f"""CASE WHEN substr(s.module_id, 1, {len(MODULE_PREFIX)}) = '{MODULE_PREFIX}'
    THEN substr(s.module_id, {len(MODULE_PREFIX) + 1}) ELSE s.module_id END"""
_SEARCH: Final = f"""SELECT s.id FROM setups s LEFT JOIN registrations r ON r.id = {_MODULE}
    WHERE {{where}} ORDER BY s.place LIMIT ? OFFSET ?"""  # noqa: S608 - our own text

# The two spellings of the contract, and none.
_ORGANIZATIONS: Final = ("organizations:", "organisations:", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedSetups:
    """Which setups are looked for; what is empty does not restrict.

    Attributes:
        organization: Those of this organization, however its prefix is written.
        query: A part of the name or of the id, in any case of letters.
        statuses: One of these.
        module_ids: Those of one of these modules, with or without prefix.
        module_types: Those of modules that were registered as one of these types.
    """

    organization: str = ""
    query: str = ""
    statuses: Sequence[str] = ()
    module_ids: Sequence[str] = ()
    module_types: Sequence[str] = ()


def setup_ids_work(wanted: WantedSetups, *, limit: int, offset: int) -> Work[list[str]]:
    """Ids of setups, without prefix, in the order of their creation. Both tables must have been declared."""
    conditions, parameters = ["1 = 1"], list[Value]()
    if wanted.organization:
        key = wanted.organization.partition(":")[2] or wanted.organization
        spelled = [prefix + key for prefix in _ORGANIZATIONS]
        conditions.append(f"s.organisation_id IN ({marks(spelled)})")
        parameters += spelled
    if wanted.query:
        conditions.append(f"lower(s.name || '\n{SETUP_PREFIX}' || s.id) LIKE ? ESCAPE '!'")
        parameters.append(pattern(wanted.query))
    for column, values in (
        ("s.status", wanted.statuses),
        (_MODULE, [bare_module_id(module_id) for module_id in wanted.module_ids]),
        ("r.module_type", wanted.module_types),
    ):
        if values:
            conditions.append(f"{column} IN ({marks(values)})")
            parameters += values
    sql = _SEARCH.format(where=" AND ".join(conditions))
    return [key for (key,) in (yield Statement(sql, (*parameters, limit, offset))).rows]
