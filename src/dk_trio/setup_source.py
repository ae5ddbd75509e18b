"""Where the setups of a server come from that is given no source: its file, its setup service, the module's default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dk_trio.errors import InvalidSetupError
from dk_trio.module import ModuleDefinition
from dk_trio.services.config import ServicesConfig
from dk_trio.services.local.setup import LocalSetup, read_setups
from dk_trio.services.registry import bare_module_id
from dk_trio.services.setup import SetupVersion
from dk_trio.services.stored_setups import StoredSetups
from dk_trio.services.strategy import ServicesMode


def setup_source(
    definition: ModuleDefinition,
    *,
    module_id: str,
    setup_file: Path | None,
    strict: bool,
    config: ServicesConfig,
    offered: Mapping[str, Any],
) -> LocalSetup | StoredSetups:
    """The setups of a module.

    In remote mode the provider says which setups there are: the module's default is no setup there, and only a file
    that the operator gives goes before.

    Args:
        definition: The module.
        module_id: Its id in the registry.
        setup_file: A JSON file of setups by id.
        strict: Without the module's default.
        config: Says which class keeps stored setups.
        offered: What that class may ask for, by parameter name.

    Raises:
        SetupFileError: The setup file cannot be used.
    """
    setups: dict[str, SetupVersion] = {}
    if setup_file is not None:
        setups = read_setups(
            setup_file, check=lambda content, setup_id: definition.parse_setup(content, setup_id=setup_id)
        )
    service = config.make("setup", ("", "", ""), offered) if config.has("setup") else None
    remote = config.mode is ServicesMode.REMOTE
    if remote and service is not None and not setups:
        return StoredSetups(service, module_id)
    default: dict[str, object] | None = None
    default_id, hint = "", "Store it in the services-provider." if remote else "Give it with --setup FILE.json."
    if not strict and not remote:
        try:
            definition.parse_setup({}, setup_id="default")
            default, default_id = {}, f"setups:{bare_module_id(module_id)}"
        except InvalidSetupError:
            name = definition.cls.setup_format.__name__
            hint = f"{name} has fields without defaults, so it must be given with --setup FILE.json."
    return LocalSetup(
        setups,
        service=service,
        module_id=module_id,
        name=definition.name,
        default=default,
        default_id=default_id,
        missing_hint=hint,
    )
