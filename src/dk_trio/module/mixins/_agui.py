"""`send_message`: outputs as they are, agent events as AG-UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._kept import kept

if TYPE_CHECKING:
    from dk_trio.module._context import ModuleContext, Output
    from dk_trio.module.agui import AgUiStream
    from dk_trio.module.events import AgentEvent


class AgUiMixin:
    """Sends what an agent does as AG-UI events. Needs the extra `dk-trio[agui]`; `dk_trio.module.agui` says more."""

    async def send_message(self, context: ModuleContext, value: AgentEvent | Output) -> None:
        """Send an agent event as the AG-UI events that it means, anything else as `context.send` does.

        The events of a job are one sequence, whichever handler or task sends them. One that AG-UI has no word for, or
        that comes when it can mean nothing, is not sent; the log says so.

        Raises:
            AgUiMissingError: An agent event, and the extra is not installed. A `ConfigurationError`.
            DkTrioError: What `context.send` raises.

        Cancellation: of the several outputs that an event may mean, some may have been sent; later events fit to them.
        """
        from dk_trio.module.events import AgentEvent  # every module imports this file, few send events

        if isinstance(value, AgentEvent):
            await kept(context, "agui", lambda: _stream(context)).send(value)
        else:
            await context.send(value)


def _stream(context: ModuleContext) -> AgUiStream:
    from dk_trio.module.agui import AgUiStream, Translator  # a third of a second, and an extra

    ids = context.session
    return AgUiStream(context.send, Translator(thread_id=ids.mission_id, run_id=ids.job_id))


class UserMessageMixin:
    """Sends outputs; `await context.send(output)` does the same."""

    async def send_message(self, context: ModuleContext, output: Output) -> None:
        """Send an output.

        Raises:
            DkTrioError: What `context.send` raises.
        """
        await context.send(output)
