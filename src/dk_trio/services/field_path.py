"""The path of a field that was refused, written as google.rpc.BadRequest has it."""

from __future__ import annotations


def field_path(*steps: str | int) -> str:
    """Field names with dots, positions in lists in brackets: `content.tools[1].setupId`. Empty names are left out."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step:
            path += f".{step}" if path else step
    return path
