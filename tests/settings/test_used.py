"""Every setting is read by something outside of the settings, which is the least that an effect needs."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from dk_trio.settings._layers import LAYERS

SOURCE = Path(__file__).parents[2] / "src" / "dk_trio"

# They decide what others become, inside of the settings.
INSIDE = {"preset", "server_security", "client_security", "task_wait_timeout", "backpressure_timeout"}
INSIDE |= {"backpressure_strategy", "queue_slot_timeout"}


def attributes() -> Iterator[str]:
    """Names of attributes that the package reads outside of its settings."""
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).parts
        if parts[0] not in {"settings", "pb"}:
            yield from (node.attr for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Attribute))


def test_every_setting_is_read_by_something() -> None:
    settings = {spec.name for layer in LAYERS.values() for spec in fields(layer)}
    assert settings - set(attributes()) - INSIDE == set()
