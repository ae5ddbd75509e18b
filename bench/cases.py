"""What is measured: the cases, and the aims that the project set itself."""

from dataclasses import dataclass

from bench import payloads
from bench.drivers import Call

YARDSTICK = "grpc.aio"
OURS = "dk-trio"
SERVED_MODULE = "dk-trio serve"
PROVIDER = "dk-trio provider"
STORE_ALONE = "the store alone"
TRANSPORT = "the transport alone"
QUIET = "no logs, no metrics"
QUIET_AGAIN = "the same, again"
WATCHED = "logs and metrics"
TRACED = "traces"

PER_SECOND = "per_second"
PER_MINUTE = "per_minute"
CPU_US = "cpu_us"  # of the process under test, per call, message or task
KIB_EACH = "kib_each"  # resident memory
OF_BOUND = "of_bound"  # the rate, as a share of what is asked of a provider: see bench/provider_measure.py
P50_MS = "p50_ms"  # of what the case's title names
P99_MS = "p99_ms"
MEAN_MS = "mean_ms"
OVERHEAD_MS = "overhead_ms"  # the mean less the time that the work waits by itself
DRIVER_BUSY = "driver_busy"  # share of the time that the driver was on its core: near 1, it is what was measured


@dataclass(frozen=True)
class ServerCase:
    """`messages` replies a call, of `reply_bytes` each with the gRPC prefix; a call is the unit when there is one."""

    key: str
    title: str
    call: Call
    messages: int = 1
    reply_bytes: float = 0
    unit: str = "call"


@dataclass(frozen=True)
class ClientCase:
    """`mode` and `in_flight` are what a program of bench/clients is told; `server` is whom it calls."""

    key: str
    title: str
    mode: str
    in_flight: int
    server: str
    unit: str = "call"


@dataclass(frozen=True)
class Aim:
    """A bound of the contestant's ratio to the yardstick, or of its own median; a bound of 0 is no bound."""

    case: str
    metric: str
    at_least: float = 0.0
    at_most: float = 0.0
    contestant: str = OURS
    absolute: bool = False


def unary(in_flight: int, *, tls: bool = False) -> ServerCase:
    body = payloads.grpc_frame(payloads.request(payload=payloads.UNARY_PAYLOAD))
    return ServerCase(
        key=f"{'tls-' if tls else ''}unary-{in_flight}",
        title=f"server: unary, {in_flight} in flight{', TLS' if tls else ''}",
        call=Call(payloads.UNARY, body, in_flight, tls),
        reply_bytes=payloads.reply_size(len(payloads.UNARY_PAYLOAD)),
    )


def stream(size: int, label: str, *, count: int, in_flight: int = 4) -> ServerCase:
    body = payloads.grpc_frame(payloads.request(count=count, size=size))
    return ServerCase(
        key=f"stream-{label}",
        title=f"server: streams of {count} x {size} B, {in_flight} in flight",
        call=Call(payloads.STREAM, body, in_flight),
        messages=count,
        reply_bytes=payloads.reply_size(size),
        unit="message",
    )


def module(body: bytes) -> ServerCase:
    """A StartModule-like call: Struct in, ten Structs out. The only peer-encoded body, so it comes as an argument."""
    call = Call(payloads.START_MODULE, payloads.grpc_frame(body), in_flight=8)
    return ServerCase(MODULE_KEY, f"server: module-like call, {payloads.MODULE_OUTPUTS} Structs, 8 in flight", call)


PLAIN = (unary(1), unary(64), unary(200), stream(100, "100b", count=1000), stream(10_000, "10kb", count=200))
TLS = (unary(64, tls=True),)

MODULE_KEY = "module"
HOLD_BODY = payloads.grpc_frame(b"")
HELD_STREAMS = 3000
MEMORY_KEY = "memory"
MEMORY_TITLE = f"server: memory of an open stream ({HELD_STREAMS} at once)"

CANNED = "canned"  # bench/servers/canned.py
CLIENT_CALLS = (
    ("1", "unary, 1 in flight", "unary", 1, "call"),
    ("64", "unary, 64 in flight", "unary", 64, "call"),
    ("stream", "streams of 1000 x 100 B, 4 in flight", "stream", 4, "message"),
)
CLIENTS = tuple(
    ClientCase(f"client-{key}-on-{server}", f"client of a {server} server: {label}", mode, in_flight, server, unit)
    for server in (CANNED, OURS, YARDSTICK)
    for key, label, mode, in_flight, unit in CLIENT_CALLS
    if server != CANNED or mode == "unary"
)

AIMS = (
    Aim("unary-1", PER_SECOND, at_least=1.5),
    Aim("unary-64", PER_SECOND, at_least=8),
    Aim("unary-64", CPU_US, at_most=1 / 8),
    Aim("stream-100b", PER_SECOND, at_least=10),
    Aim("stream-10kb", PER_SECOND, at_least=4),
    Aim("tls-unary-64", PER_SECOND, at_least=4),
    Aim(f"client-64-on-{CANNED}", PER_SECOND, at_least=2.5),
    Aim("module", PER_SECOND, at_least=2.5),
    Aim("start-64", PER_SECOND, at_least=1, contestant=SERVED_MODULE),
    Aim("start-200", PER_SECOND, at_least=1, contestant=SERVED_MODULE),
    Aim("start-latency", P50_MS, at_most=2, contestant=SERVED_MODULE, absolute=True),
    Aim("parked", KIB_EACH, at_most=25, contestant=SERVED_MODULE, absolute=True),
    Aim("parked", P99_MS, at_most=10, contestant=SERVED_MODULE, absolute=True),
    Aim("cancel-burst", P99_MS, at_most=20, contestant=SERVED_MODULE, absolute=True),
    Aim("cancel-spread", P99_MS, at_most=20, contestant=SERVED_MODULE, absolute=True),
    Aim("provider-store-64", OF_BOUND, at_least=1, contestant=PROVIDER, absolute=True),
    Aim("provider-signals-64", OF_BOUND, at_least=1, contestant=PROVIDER, absolute=True),
    Aim("observe-64", PER_SECOND, at_least=0.9, contestant=WATCHED),
    Aim("observe-64", CPU_US, at_most=1.1, contestant=WATCHED),
)
