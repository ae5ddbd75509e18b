"""`dk-trio serve --check`: what would be served, without serving it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from dk_trio.addresses import with_port

from ._output import write_line

if TYPE_CHECKING:
    from dk_trio.hosting import HostedModule
    from dk_trio.server import ModuleServer
    from dk_trio.settings import SecuritySettings, Settings


def found(server: ModuleServer, targets: Mapping[str, str], settings: Settings) -> dict[str, Any]:
    """What would be served, as JSON."""
    services = settings.services
    remote = services.mode == "remote"
    return {
        "address": with_port(settings.server.host, settings.server.port),
        "security": _security(settings.security),
        "workers": settings.server.workers,
        "mode": services.mode,
        "provider": services.provider if remote else None,
        "data": None if remote or server.platform.directory is None else str(server.platform.directory),
        "modules": [_module(module, targets[key]) for key, module in server.modules.items()],
        "warnings": [*settings.warnings, *server.security.risks(settings.server.host)],
    }


def show(what: dict[str, Any], *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        write_line(what)
        return
    for module in what["modules"]:
        click.echo(f"{module['name']} {module['version']} ({module['id']}), {module['class']} in {module['file']}")
        click.echo(f"  protocols  {', '.join(module['protocols']) or 'any'}")
        click.echo(f"  setups     {', '.join(module['setups']) or 'those that are stored'}")
    workers = f", {what['workers']} workers" if what["workers"] > 1 else ""
    click.echo(f"would listen on {what['address']}, {what['security']}{workers}")
    kept = f"provider {what['provider']}" if what["provider"] else f"data in {what['data'] or 'memory'}"
    click.echo(f"{what['mode']} mode, {kept}")


def _module(module: HostedModule, target: str) -> dict[str, Any]:
    definition = module.definition
    return {
        "id": module.id,
        "name": definition.name,
        "version": module.info().version,
        "target": target,
        "class": definition.cls.__qualname__,
        "file": inspect.getsourcefile(definition.cls),
        "protocols": [*definition.protocols],
        "setups": module.setup_ids(),
    }


def _security(settings: SecuritySettings) -> str:
    parts = ["plaintext" if settings.tls_cert is None else "TLS"]
    if settings.tls_client_ca is not None:
        parts.append("client certificates")
    if settings.auth_token is not None or settings.auth_tokens_file is not None:
        parts.append("tokens")
    return ", ".join(parts)
