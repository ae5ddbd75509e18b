"""The package of AG-UI's models, or a clear word that it is not installed."""

from __future__ import annotations

from dk_trio.errors import ConfigurationError


class AgUiMissingError(ConfigurationError, ImportError):
    """AG-UI events were to be sent, but ag-ui-protocol is not installed. Also an ImportError, for `try: import`."""

    code = "AGUI_MISSING"


try:
    from ag_ui import core as core
except ImportError as error:
    raise AgUiMissingError(
        f"AG-UI events need the package ag-ui-protocol, which cannot be imported: {error}.",
        hint="Install the extra: pip install 'dk-trio[agui]'.",
    ) from error
