"""The inspector's pages as an ASGI app."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dk_trio.errors import JobNotFoundError
from dk_trio.lifecycle import Reason

from ._access import Access, Refusal
from ._live import VIEWERS_MAX, Live

if TYPE_CHECKING:
    from dk_trio.observe.web import App, Receive, Scope, Send
    from dk_trio.server import ModuleServer

_log = logging.getLogger("dk_trio.inspector")

_TOLD_EVERY: Final = 10.0  # seconds between two lines of the log about requests that were refused

_HEADERS: Final = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(live: Live, access: Access, modules: Callable[[], Sequence[ModuleServer]]) -> App:
    """The app of one process.

    Args:
        live: Takes the snapshots.
        access: Says who may look.
        modules: Whose jobs may be stopped.
    """
    page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    pages = _Pages(live, access, modules)
    policy = _policy(page)

    async def index(_: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    return Starlette(
        routes=[
            Route("/", pages.guarded(index)),
            Route("/events", pages.guarded(pages.events)),
            Route("/snapshot.json", pages.guarded(pages.snapshot)),
            Route("/tasks.json", pages.guarded(pages.tasks)),
            Route("/jobs/{job_id}/stop", pages.guarded(pages.stop), methods=["POST"]),
        ]
    )


class _Pages:
    def __init__(self, live: Live, access: Access, modules: Callable[[], Sequence[ModuleServer]]) -> None:
        self._live = live
        self._access = access
        self._modules = modules
        self._told_at = float("-inf")

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Answer those who may look, and give their cookie to those who have come with the token."""

        async def guard(request: Request) -> Response:
            # Cookies know no ports: another worker, or another server of the same machine, has one of its own.
            name = f"dk_trio_inspector_{request.url.port or 80}"
            token = request.query_params.get("token")
            if token is not None and self._access.cookie is not None and request.method == "GET":
                if not self._access.knows(token):
                    return self._refused(
                        request, Refusal(HTTPStatus.UNAUTHORIZED, "This is not the inspector's token.")
                    )
                response: Response = RedirectResponse(request.url.path, HTTPStatus.SEE_OTHER)
                response.set_cookie(name, self._access.cookie, httponly=True, samesite="strict")
            else:
                refusal = self._access.refuses(request.headers, request.cookies.get(name, ""))
                response = await endpoint(request) if refusal is None else self._refused(request, refusal)
            response.headers.update(_HEADERS)
            return response

        return guard

    def _refused(self, request: Request, refusal: Refusal) -> Response:
        now = trio.current_time()
        if now - self._told_at > _TOLD_EVERY:
            self._told_at = now
            peer = request.client.host if request.client else "somebody"
            _log.warning("the inspector has refused a request from %s: %s", peer, refusal.text)
        return PlainTextResponse(refusal.text + "\n", refusal.status, headers=_HEADERS)

    async def snapshot(self, _: Request) -> Response:
        """Everything, once."""
        return Response((await self._live.snapshot())[1], media_type="application/json")

    async def tasks(self, _: Request) -> Response:
        """The tree of tasks, once."""
        return JSONResponse((await self._live.snapshot())[0]["tasks"])

    async def events(self, _: Request) -> Response:
        """Everything, again and again, as server-sent events."""
        return _Events(self._live)

    async def stop(self, request: Request) -> Response:
        """Stop a job. Answers before it has ended: its cleanup runs."""
        refusal = self._access.refuses_action(request.headers)
        if refusal is not None:
            return self._refused(request, refusal)
        job_id = request.path_params["job_id"]
        for server in self._modules():
            try:
                server.jobs.stop(job_id, Reason.STOP_MODULE, "an operator has stopped it with the inspector")
            except JobNotFoundError:
                continue
            _log.warning(
                "job %s is stopped with the inspector, from %s", job_id, request.client and request.client.host
            )
            return JSONResponse({"stopped": job_id}, HTTPStatus.ACCEPTED)
        return PlainTextResponse("This job is not here, or has ended.\n", HTTPStatus.NOT_FOUND)


class _Events(Response):
    """Snapshots for one who looks on, for as long as he does."""

    media_type = "text/event-stream"

    def __init__(self, live: Live) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._live.viewing() as room:
            if not room:
                text = f"{VIEWERS_MAX} pages look at this inspector already.\n"
                refused = PlainTextResponse(text, HTTPStatus.SERVICE_UNAVAILABLE, headers={"retry-after": "10"})
                await refused(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": self.raw_headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                async with aclosing(self._live.snapshots()) as snapshots:
                    async for text in snapshots:
                        event = f"data: {text}\n\n".encode()
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                nursery.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _policy(page: str) -> str:
    """What the page may do: run its own script, ask this server, and nothing else."""

    def allowed(tag: str) -> str:
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {allowed('script')}",
            f"style-src {allowed('style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
