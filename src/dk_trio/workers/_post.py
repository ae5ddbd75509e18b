"""Where a worker is posted: its number, its sockets, its parent's address; in the words of a command line."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a parent tells a worker when it starts it.

    Attributes:
        number: Of the worker, from 0.
        control: Descriptor of the worker's end of the control line.
        handover: Descriptor of the socket that connections come over.
        host: Address that the parent listens on.
        port: Its port.
        beside: Its predecessor still runs, and has its other ports.
        crew: Name of all workers of its parent.
    """

    number: int
    control: int
    handover: int
    host: str
    port: int
    beside: bool = False
    crew: str = ""

    @property
    def instance(self) -> str:
        """Name of its place at the address: its successor has the same."""
        return f"{self.crew}-{self.number}" if self.crew else ""

    def __str__(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The post that `str` gave this text.

        Raises:
            ValueError: It is none, or its sockets are not there: only a parent can give one.
        """
        try:
            post = cls(**json.loads(text))
            families = {_family(descriptor) for descriptor in (post.control, post.handover)}
        except (TypeError, ValueError, OSError) as error:
            raise ValueError(f"this is no post of a worker: {error}") from error
        if families != {socket.AF_UNIX}:
            raise ValueError("this is no post of a worker: its sockets are others'")
        return post


def _family(descriptor: int) -> int:
    found = socket.socket(fileno=descriptor)
    try:
        return found.family
    finally:
        found.detach()
