"""ConfigSetupModule: turn the form that a user has filled in into the content that jobs run with.

The author's `run_config_setup` runs in a task of its own, within a bounded time, and its failure is told at once with
its cause. Neither `initialize` nor `cleanup` is called: there is no job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from pydantic import BaseModel

from dk_trio.boundary import apart, authors_code
from dk_trio.errors import ConfigSetupFailedError, ConfigSetupTimeoutError, InvalidOutputError, InvalidSetupError
from dk_trio.module import ModuleContext, ModuleDefinition, Output, RequestMetadata, SessionIds


async def configure(
    definition: ModuleDefinition,
    form: Any,
    *,
    ids: SessionIds,
    request_metadata: RequestMetadata,
    timeout: float,
) -> dict[str, Any]:
    """Run the author's `run_config_setup`.

    Args:
        definition: The module.
        form: The form's content as the module's setup model.
        ids: Of this configuration; the job id is its own.
        request_metadata: The caller's metadata.
        timeout: Seconds.

    Returns:
        The content that jobs run with, as JSON values.

    Raises:
        ConfigSetupFailedError: The author's code raised, or returned what is no setup of this module.
        ConfigSetupTimeoutError: It took longer than `timeout`.
    """
    returned: list[Any] = []

    async def body() -> None:
        with authors_code(ConfigSetupFailedError, ids.job_id):
            module = definition.cls()
            context = ModuleContext(session=ids, send=_no_stream, request_metadata=request_metadata)
            module.enter(context, definition.triggers)
            returned.append(await module.run_config_setup(context, form))

    with trio.move_on_after(timeout) as scope:
        await apart(body, name=f"config setup {ids.setup_id}")
    if scope.cancelled_caught or not returned:
        raise ConfigSetupTimeoutError(
            f"run_config_setup of {definition.name} took longer than {timeout:g} s and was cancelled.",
            hint="Make it faster, or raise DIGITALKIN_CONFIG_SETUP_TIMEOUT.",
        )
    return _content(definition, returned[0], ids.setup_id)


def _content(definition: ModuleDefinition, returned: object, setup_id: str) -> dict[str, Any]:
    """What was returned as JSON values, checked against the setup format that jobs will parse it with."""
    if isinstance(returned, BaseModel):
        content = returned.model_dump(mode="json")
    elif isinstance(returned, Mapping):
        content = dict(returned)
    else:
        raise ConfigSetupFailedError(
            f"run_config_setup returned a {type(returned).__name__}: {returned!r:.80}.",
            hint="Return the setup model, or a dict of its fields.",
        )
    try:
        definition.parse_setup(content, setup_id=setup_id)
    except InvalidSetupError as error:
        raise ConfigSetupFailedError(f"run_config_setup returned what is no setup: {error.message}") from error
    return content


async def _no_stream(_: Output) -> None:
    raise InvalidOutputError(
        "A config setup has no stream to send to.", hint="Return the setup from run_config_setup; send from a handler."
    )
