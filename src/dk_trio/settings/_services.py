"""The layer of services: what stands behind a module's context, and how long it may take. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ._variable import SECONDS, WEEK, number, setting, target, whole

MEMORY = ":memory:"
DATA_DIR = Path(".dk-trio")
PROVIDER = "127.0.0.1:50051"  # the port that clients of the existing SDK have as default


def _mode(text: str) -> str:
    text = text.lower()  # the existing SDK's option is in upper case
    if text not in {"local", "remote"}:
        raise ValueError(text)
    return text


def _directory(text: str) -> Path | None:
    return None if text == MEMORY else Path(text)


def _zone(text: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # 4 ms that a client does not need

    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(text) from error


@dataclass(frozen=True, kw_only=True)
class ServicesSettings:
    """Services of a module's context."""

    mode: Literal["local", "remote"] = setting(
        "SERVICE_MODE",
        _mode,
        default="local",
        expects="local or remote",
        about="Which strategies stand behind the services of a context.",
    )
    provider: str = setting(
        "DIGITALKIN_PROVIDER",
        target,
        default=PROVIDER,
        expects="HOST:PORT",
        about="The services-provider of remote mode.",
    )
    data_dir: Path | None = setting(
        "DIGITALKIN_DATA_DIR",
        _directory,
        default=DATA_DIR,
        expects=f"a directory, or {MEMORY} to keep nothing",
        about="Where local services keep their data, in a directory for each module; made when it is first needed.",
    )
    tool_resolve_timeout: float = setting(
        "DIGITALKIN_TOOL_RESOLVE_TIMEOUT",
        number(0.001, WEEK),
        default=10.0,
        expects=SECONDS.format(0.001),
        about="Time to look up one tool that a setup has selected.",
    )
    fetch_timeout: float = setting(
        "DIGITALKIN_FETCH_TIMEOUT",
        number(0.001, WEEK),
        default=10.0,
        expects=SECONDS.format(0.001),
        about="Time for one fetcher of a dynamic field; what takes longer is left out of the schema, which says so.",
    )
    chat_history_flush_threshold: int = setting(
        "DIGITALKIN_CHAT_HISTORY_FLUSH_THRESHOLD",
        whole(1, 1_000_000),
        default=10,
        expects="a whole number of messages from 1 to 1000000",
        about="Messages of a chat history that are written together; the rest is written when the job ends.",
    )
    file_history_flush_threshold: int = setting(
        "DIGITALKIN_FILE_HISTORY_FLUSH_THRESHOLD",
        whole(1, 1_000_000),
        default=10,
        expects="a whole number of appends from 1 to 1000000",
        about="Appends to a file history that are written together; the rest is written when the job ends.",
    )
    timezone: str = setting(
        "DIGITALKIN_TIMEZONE",
        _zone,
        default="Europe/Paris",
        expects="a time zone of the IANA database, such as Europe/Paris or UTC",
        about="Time zone of a job's session.",
    )
