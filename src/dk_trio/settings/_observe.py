"""The layer of what a process tells of itself: logs, metrics, traces, the inspector, profiles. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dk_trio.addresses import is_loopback
from dk_trio.errors import SettingError

from ._variable import BOOL, choice, host, number, path, secret, setting, truth, whole

LEVELS = ("debug", "info", "warning", "error")
PROFILERS = ("none", "pyinstrument", "viztracer", "yappi")

_LEVEL = "debug, info, warning or error"
_PORT = "a port number from 0 (any free port) to 65535"
_SHARE = "a number from 0 (none) to 1 (all)"
_HOUR = 3600.0


def _endpoint(text: str) -> str:
    scheme, mark, rest = text.partition("://")
    if scheme.lower() not in {"http", "https"} or not mark or not rest or " " in rest:
        raise ValueError(text)
    return text


@dataclass(frozen=True, kw_only=True)
class ObserveSettings:
    """What is logged, counted, traced and shown, and where."""

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "DIGITALKIN_LOG_LEVEL",
        choice(*LEVELS),
        default="info",
        expects=_LEVEL,
        about="Least level of what is logged to stderr.",
    )
    log_format: Literal["auto", "json", "text"] = setting(
        "DIGITALKIN_LOG_FORMAT",
        choice("auto", "json", "text"),
        default="auto",
        expects="auto, json or text",
        about="Form of what is logged to stderr; auto: text on a terminal, JSON on one line elsewhere.",
    )
    log_dir: Path = setting(
        "DIGITALKIN_LOG_DIR",
        path,
        default=Path("/app/logs"),
        expects="a directory",
        about="Directory of the rotating JSON log file; the default counts only where /app exists.",
    )
    log_file: Path | None = setting(
        "DIGITALKIN_LOG_FILE",
        path,
        expects="the path of a file",
        about="The rotating JSON log file; one in the log directory when unset.",
    )
    file_log_level: Literal["debug", "info", "warning", "error"] = setting(
        "DIGITALKIN_FILE_LOG_LEVEL",
        choice(*LEVELS),
        default="debug",
        expects=_LEVEL,
        about="Least level of what is written to the log file.",
    )
    access_log: bool = setting(
        "DIGITALKIN_ACCESS_LOG",
        truth,
        default=True,
        expects=BOOL,
        about="Whether each RPC is logged with its code and duration.",
    )
    metrics_port: int | None = setting(
        "DIGITALKIN_METRICS_PORT",
        whole(0, 65535),
        expects=_PORT,
        about="Port of the Prometheus endpoint; none: there is no endpoint. Each further worker takes the next port.",
    )
    metrics_host: str = setting(
        "DIGITALKIN_METRICS_HOST",
        host,
        default="127.0.0.1",
        expects="a host name or address",
        about="Address that the Prometheus endpoint listens on.",
    )
    traces_endpoint: str | None = setting(
        "DIGITALKIN_TRACES_ENDPOINT",
        _endpoint,
        expects="the URL of an OTLP collector, such as http://127.0.0.1:4318",
        about="Where OpenTelemetry spans are sent, by OTLP over HTTP; none: there are no spans.",
        aliases=("OTEL_EXPORTER_OTLP_ENDPOINT",),
    )
    traces_sample: float = setting(
        "DIGITALKIN_TRACES_SAMPLE",
        number(0, 1),
        default=1.0,
        expects=_SHARE,
        about="Share of the traces that begin here which are recorded; a caller's decision goes before it.",
    )
    inspector: bool = setting(
        "DIGITALKIN_INSPECTOR",
        truth,
        default=False,
        expects=BOOL,
        about="Whether the inspector is served: tasks, jobs and gauges of the process as a web page.",
        aliases=("DIGITALKIN_ASYNCIO_INSPECTOR",),
    )
    inspector_port: int = setting(
        "DIGITALKIN_INSPECTOR_PORT",
        whole(0, 65535),
        default=8765,
        expects=_PORT,
        about="Port of the inspector. Each further worker takes the next port.",
        aliases=("DIGITALKIN_ASYNCIO_INSPECTOR_PORT",),
    )
    inspector_host: str = setting(
        "DIGITALKIN_INSPECTOR_HOST",
        host,
        default="127.0.0.1",
        expects="a host name or address",
        about="Address that the inspector listens on; other than loopback it needs DIGITALKIN_INSPECTOR_TOKEN.",
    )
    inspector_token: str | None = setting(
        "DIGITALKIN_INSPECTOR_TOKEN",
        secret,
        expects="a token of printable ASCII characters without spaces",
        about="Token that the inspector asks for.",
        secret=True,
    )
    inspector_actions: bool = setting(
        "DIGITALKIN_INSPECTOR_ACTIONS",
        truth,
        default=False,
        expects=BOOL,
        about="Whether the inspector may stop jobs.",
    )
    stall_threshold: float = setting(
        "DIGITALKIN_STALL_THRESHOLD",
        number(0, _HOUR),
        default=1.0,
        expects="a number of seconds from 0 (off) to 3600",
        about="Time for which the event loop may be blocked before the stack that blocks it is logged.",
    )
    profiler: Literal["none", "pyinstrument", "viztracer", "yappi"] = setting(
        "DIGITALKIN_PROFILER",
        choice(*PROFILERS),
        default="none",
        expects="none, pyinstrument, viztracer or yappi",
        about="Profiler that runs around each job.",
    )
    profile_output_dir: Path = setting(
        "DIGITALKIN_PROFILE_OUTPUT_DIR",
        path,
        default=Path("profiles"),
        expects="a directory",
        about="Where profiles are written, one file for each job; made when it is first needed.",
    )

    def __post_init__(self) -> None:
        """Refuse what would show jobs to a network without asking who looks."""
        if self.inspector and self.inspector_token is None and not is_loopback(self.inspector_host):
            raise SettingError(
                f"DIGITALKIN_INSPECTOR_HOST={self.inspector_host} shows the inspector to others, and there is no "
                "DIGITALKIN_INSPECTOR_TOKEN that they would need.",
                hint="Set a token, or listen on 127.0.0.1.",
            )

    def without_effect(self) -> dict[str, str]:
        """Variables that have no effect beside the values of others, and why."""
        out: dict[str, str] = {}
        if not self.inspector:
            names = ("PORT", "HOST", "TOKEN", "ACTIONS")
            out |= {f"DIGITALKIN_INSPECTOR_{name}": "DIGITALKIN_INSPECTOR is false" for name in names}
        if self.metrics_port is None:
            out["DIGITALKIN_METRICS_HOST"] = "DIGITALKIN_METRICS_PORT is not set"
        if self.traces_endpoint is None:
            out["DIGITALKIN_TRACES_SAMPLE"] = "DIGITALKIN_TRACES_ENDPOINT is not set"
        if self.profiler == "none":
            out["DIGITALKIN_PROFILE_OUTPUT_DIR"] = "DIGITALKIN_PROFILER is none"
        if self.log_file is not None:
            out["DIGITALKIN_LOG_DIR"] = f"DIGITALKIN_LOG_FILE is {self.log_file}"
        return out
