"""The embedded services-provider: what the modules of a mesh share, served from one durable store.

One file for each service of the contract, all of the shape of `_base.Servicer`; `_servicers` lists them, `_stores` what
they keep, `_server` puts them on the network. See `docs/provider.md`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._options import ProviderOptions as ProviderOptions
    from ._server import DrainReport as DrainReport
    from ._server import Provider as Provider
    from ._server import ProviderStatistics as ProviderStatistics

# Lazily: whoever wants the options alone, such as a command line, does not load the services.
_HOMES: Final = {
    "DrainReport": "_server",
    "Provider": "_server",
    "ProviderOptions": "_options",
    "ProviderStatistics": "_server",
}

__all__ = ["DrainReport", "Provider", "ProviderOptions", "ProviderStatistics"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value  # the next use is a plain attribute
    return value
