"""The inspector: a page that shows live what a process does, and lets an operator stop a job when that is allowed.

    http://127.0.0.1:8765/               the page
    http://127.0.0.1:8765/snapshot.json  what it shows
    http://127.0.0.1:8765/tasks.json     the tree of tasks alone
    http://127.0.0.1:8765/events         snapshots as server-sent events

While nobody looks it costs nothing but a few words kept of each job that ends. Whoever looks gets a snapshot each
second, and less often when there are so many tasks that it would take more than a twentieth of the loop's time.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from dk_trio.addresses import is_loopback
from dk_trio.boundary import unwrapped
from dk_trio.errors import ConfigurationError, MissingPackageError
from dk_trio.observe._part import Observed, Part
from dk_trio.observe.task_tree import Surveyor
from dk_trio.observe.web import serve_app

from ._access import Access
from ._live import Live
from ._snapshot import Ended, snapshot

if TYPE_CHECKING:
    from dk_trio.settings import ObserveSettings

_log = logging.getLogger("dk_trio.inspector")


class Inspector(Part):
    """Serves the inspector.

    Args:
        settings: Where, for whom, and what may be done.
        worker: Number of this process among its siblings, from 0; added to the port.

    Attributes:
        address: `HOST:PORT` while it is served; empty otherwise.

    Raises:
        ConfigurationError: It would be reachable by others without a token.
        MissingPackageError: The extra `inspector` is not installed.
    """

    def __init__(self, settings: ObserveSettings, worker: int = 0) -> None:
        host, token = settings.inspector_host, settings.inspector_token
        if token is None and not is_loopback(host):
            raise ConfigurationError(
                f"DIGITALKIN_INSPECTOR_HOST is {host}, where others can reach the inspector, and it has no token.",
                hint="Set DIGITALKIN_INSPECTOR_TOKEN, or leave it at 127.0.0.1 and forward its port.",
            )
        try:
            import starlette  # noqa: F401  to be told now, and not when it is opened
        except ImportError as error:
            raise MissingPackageError(
                f"DIGITALKIN_INSPECTOR needs the package starlette, which cannot be imported: {error}.",
                hint="Install the extra: pip install 'dk-trio[inspector]'.",
            ) from error
        self._settings = settings
        self._worker = worker
        self._ended = Ended()
        self.hooks = (self._ended,)
        self.address = ""

    @asynccontextmanager
    async def opened(self, observed: Observed) -> AsyncIterator[None]:
        """Serve the inspector for the length of the block.

        Raises:
            ListenError: Its address cannot be listened on.
        """
        from ._app import make_app

        settings = self._settings
        actions = settings.inspector_actions
        access = Access(host=settings.inspector_host, token=settings.inspector_token, actions=actions)
        live = Live(Surveyor(), lambda: snapshot(observed, ended=self._ended.told(), actions=actions))
        app = make_app(live, access, observed.modules)
        port = settings.inspector_port and settings.inspector_port + self._worker  # 0 stays any free one
        async with unwrapped(), trio.open_nursery() as nursery:
            self.address = await nursery.start(
                partial(serve_app, app, host=settings.inspector_host, port=port, setting="DIGITALKIN_INSPECTOR")
            )
            _log.info("inspector at http://%s/%s", self.address, "" if actions else ", read-only")
            try:
                yield
            finally:
                live.close()
                self.address = ""
                nursery.cancel_scope.cancel()
