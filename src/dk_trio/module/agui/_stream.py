"""The AG-UI side of one job's stream: translate, send, follow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from dk_trio.module.events import AgentEvent

from ._outputs import AgUiOutput, output_of
from ._translator import Translator


class AgUiStream:
    """Sends agent events as AG-UI outputs. Several tasks may send: the outputs of one event stay together.

    Args:
        send: The `send` of the job's context.
        translator: Its state is that of the stream.
    """

    def __init__(self, send: Callable[[AgUiOutput], Awaitable[None]], translator: Translator) -> None:
        self._send = send
        self._translator = translator
        self._turn = trio.Lock()

    async def send(self, event: AgentEvent) -> None:
        """Send what the event means; returns when the stream has taken all of it. May be nothing.

        Raises:
            DkTrioError: What the context's `send` raises.

        Cancellation: a part may have been sent. The next event fits to it.
        """
        async with self._turn:
            for translated in self._translator.translate(event):
                await self._send(output_of(translated))
                self._translator.sent(translated)
