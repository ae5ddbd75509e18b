"""The tools that a setup selects, in the context of the job or configuration that runs with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from dk_trio.errors import ToolUnavailableError

from ._context import ModuleContext
from .tools import build_tool_cache, selections

_log = logging.getLogger("dk_trio.module")


async def find_tools(context: ModuleContext, setup: Any) -> None:
    """Fill the tool cache of a context. A tool that cannot be used is told in the log, and to whoever asks for it.

    Args:
        context: Its registry and communication are asked, with its caller's metadata.
        setup: The parsed setup. What its `resolved_tools` has is not asked for again.

    Raises:
        ServiceError: Tools are selected, and the module has no registry or no communication.
    """
    if next(selections(setup, "content"), None) is None:
        return  # without asking for services that the module may not have
    cache = context.tool_cache = await build_tool_cache(
        setup,
        context.registry,
        context.communication,
        timeout=context.settings.tool_resolve_timeout,
        metadata=context.request_metadata.to_grpc_metadata(),
    )
    for failure in cache.failures.values():
        _log.warning("job %s: %s", context.session.job_id, failure.text)


def unavailable(context: ModuleContext, setup: Any) -> ToolUnavailableError | None:
    """One error for all tools that a setup still selects and that cannot be used; None when there is none."""
    failures: dict[str, ToolUnavailableError] = {}
    for wanted in selections(setup, "content"):
        try:
            context.tool_cache.get(wanted.setup_id)
        except ToolUnavailableError as error:
            failures.setdefault(wanted.setup_id, error)
    return _together([*failures.values()]) if failures else None


def _together(failures: Iterable[ToolUnavailableError]) -> ToolUnavailableError:
    first, *others = failures
    if not others:
        return first
    text = " ".join(failure.message for failure in (first, *others))
    violations = [violation for failure in (first, *others) for violation in failure.violations]
    return ToolUnavailableError(text, hint=first.hint, violations=violations)
