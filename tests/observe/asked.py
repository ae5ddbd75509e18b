"""An ASGI app without a socket: one request, one answer."""

import json
from dataclasses import dataclass, field
from typing import Any

import trio


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(path: str, method: str, headers: dict[str, str], port: int) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", port),
    }


async def asked(app: Any, path: str, method: str = "GET", *, port: int = 8765, **headers: str) -> Answer:
    """What an app answers; `x_y` in names of headers is `x-y`."""
    given = {"host": f"127.0.0.1:{port}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    answer = Answer()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = int(message["status"])
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message["body"]

    await app(scope_of(path, method, given, port), receive, send)
    return answer


class Viewer:
    """A browser that looks on: the events that came, until it goes away."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._gone = trio.Event()
        self.status = 0
        self.events: list[Any] = []
        self.ended = trio.Event()

    async def look(self) -> None:
        asked_once = False

        async def receive() -> dict[str, Any]:
            nonlocal asked_once
            if not asked_once:
                asked_once = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = int(message["status"])
            elif message["body"].startswith(b"data: "):
                assert message["body"].endswith(b"\n\n")
                assert message["body"].count(b"\n") == 2, "one event"
                self.events.append(json.loads(message["body"].removeprefix(b"data: ")))

        await self._app(scope_of("/events", "GET", {"host": "localhost:8765"}, 8765), receive, send)
        self.ended.set()

    def go(self) -> None:
        self._gone.set()
