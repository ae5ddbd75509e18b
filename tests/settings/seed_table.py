"""Facts of the tuning guide: its table of variables, row by row, and its four recommendations, as data."""

from typing import NamedTuple


class Row(NamedTuple):
    """One row of the guide's "Complete Environment Variable Reference"."""

    variable: str
    type: str
    default: str
    layer: str


def _rows(text: str) -> list[Row]:
    out = []
    for line in text.strip().splitlines():
        name, kind, default, layer = (cell.strip() for cell in line.split("|"))
        out.append(Row(f"DIGITALKIN_{name}", kind, default, layer))
    return out


ROWS = _rows("""
MAX_CONCURRENT_RPCS          | int   | cpu×200      | Server
THREAD_POOL_WORKERS          | int   | min(4, cpu)  | Server
MAX_CONCURRENT_TASKS         | int   | 100          | Task Mgr
MAX_QUEUED_TASKS             | int   | 0            | Task Mgr
ADMISSION_TIMEOUT            | float | 5.0s         | Task Mgr
TASK_WAIT_TIMEOUT            | float | 30s          | Task Mgr
BACKPRESSURE_STRATEGY        | str   | block        | Task Mgr
BACKPRESSURE_TIMEOUT         | float | 300.0s       | Task Mgr
COMPLETION_TIMEOUT           | float | 300.0s       | Lifecycle
STREAM_DRAIN_TIMEOUT         | float | 300.0s       | Lifecycle
GRPC_TIMEOUT                 | float | 30s          | Signal I/O
POLL_TIMEOUT                 | float | 1s           | Signal I/O
SIGNAL_POLL_INTERVAL         | float | 1.0s         | Signal I/O
SIGNAL_INITIAL_POLL_INTERVAL | float | 0.1s         | Signal I/O
SIGNAL_QUEUE_SIZE            | int   | 512          | Signal I/O
SIGNAL_FLUSH_INTERVAL        | float | 0.1s         | Signal I/O
SIGNAL_MAX_BATCH_SIZE        | int   | 50           | Signal I/O
SIGNAL_SEND_RETRIES          | int   | 3            | Signal I/O
SIGNAL_SEND_BACKOFF_MS       | float | 100ms        | Signal I/O
GRPC_QUERY_MAX_RETRIES       | int   | 2            | App retry
GRPC_QUERY_BACKOFF_BASE_MS   | float | 50           | App retry
TOOL_RESOLVE_TIMEOUT         | float | 10.0s        | Tool init
CONFIG_SETUP_TIMEOUT         | float | 30.0s        | Job Mgr
GRPC_RETRY_MAX_ATTEMPTS      | int   | 5            | Channel retry
GRPC_RETRY_INITIAL_BACKOFF   | str   | 0.1s         | Channel retry
GRPC_RETRY_MAX_BACKOFF       | str   | 10s          | Channel retry
GRPC_RETRY_BACKOFF_MULTIPLIER| float | 2.0          | Channel retry
GRPC_DNS_RESOLUTION_MS       | int   | 500          | Channel opts
GRPC_INITIAL_RECONNECT_MS    | int   | 1000         | Channel opts
GRPC_MAX_RECONNECT_MS        | int   | 10000        | Channel opts
GRPC_MIN_RECONNECT_MS        | int   | 500          | Channel opts
GRPC_KEEPALIVE_TIME_MS       | int   | 60000        | Channel opts
GRPC_KEEPALIVE_TIMEOUT_MS    | int   | 20000        | Channel opts
GRPC_MIN_PING_INTERVAL_MS    | int   | 30000        | Channel opts
SETUP_CACHE_MAX              | int   | 100          | Module
MODULE_ID                    | str   | metadata     | Module
CHAT_HISTORY_FLUSH_THRESHOLD | int   | 10           | Module
TIMEZONE                     | str   | Europe/Paris | Module
LOG_DIR                      | str   | /app/logs    | Module
ASYNCIO_INSPECTOR            | bool  | false        | Debug
ASYNCIO_INSPECTOR_PORT       | int   | 8765         | Debug
PROFILER                     | str   | none         | Debug
PROFILE_OUTPUT_DIR           | str   | ./profiles   | Debug
""")

# The guide's .env blocks: small (4 vCPU, 8 GB), medium (8, 32 GB), large (32, 64 GB), and Railway, a container PaaS.
PRESETS = {
    "small": """
        DIGITALKIN_MAX_CONCURRENT_RPCS=1000
        DIGITALKIN_THREAD_POOL_WORKERS=2
        DIGITALKIN_MAX_CONCURRENT_TASKS=100
        DIGITALKIN_MAX_QUEUED_TASKS=1000
        DIGITALKIN_ADMISSION_TIMEOUT=5.0
        DIGITALKIN_COMPLETION_TIMEOUT=300.0
        DIGITALKIN_STREAM_DRAIN_TIMEOUT=300.0
        DIGITALKIN_GRPC_TIMEOUT=30
        DIGITALKIN_SIGNAL_MAX_BATCH_SIZE=50
        DIGITALKIN_SIGNAL_FLUSH_INTERVAL=0.1
        DIGITALKIN_SIGNAL_QUEUE_SIZE=512
        DIGITALKIN_SETUP_CACHE_MAX=200
    """,
    "medium": """
        DIGITALKIN_MAX_CONCURRENT_RPCS=2000
        DIGITALKIN_THREAD_POOL_WORKERS=4
        DIGITALKIN_MAX_CONCURRENT_TASKS=200
        DIGITALKIN_MAX_QUEUED_TASKS=3000
        DIGITALKIN_ADMISSION_TIMEOUT=5.0
        DIGITALKIN_COMPLETION_TIMEOUT=600.0
        DIGITALKIN_STREAM_DRAIN_TIMEOUT=600.0
        DIGITALKIN_GRPC_TIMEOUT=60
        DIGITALKIN_SIGNAL_MAX_BATCH_SIZE=100
        DIGITALKIN_SIGNAL_FLUSH_INTERVAL=0.2
        DIGITALKIN_SIGNAL_QUEUE_SIZE=1024
        DIGITALKIN_SETUP_CACHE_MAX=500
    """,
    "large": """
        DIGITALKIN_MAX_CONCURRENT_RPCS=5000
        DIGITALKIN_THREAD_POOL_WORKERS=4
        DIGITALKIN_MAX_CONCURRENT_TASKS=400
        DIGITALKIN_MAX_QUEUED_TASKS=5000
        DIGITALKIN_ADMISSION_TIMEOUT=5.0
        DIGITALKIN_COMPLETION_TIMEOUT=900.0
        DIGITALKIN_STREAM_DRAIN_TIMEOUT=600.0
        DIGITALKIN_GRPC_TIMEOUT=60
        DIGITALKIN_SIGNAL_MAX_BATCH_SIZE=200
        DIGITALKIN_SIGNAL_FLUSH_INTERVAL=0.3
        DIGITALKIN_SIGNAL_QUEUE_SIZE=2048
        DIGITALKIN_SETUP_CACHE_MAX=1000
    """,
    "railway": """
        DIGITALKIN_MAX_CONCURRENT_RPCS=1500
        DIGITALKIN_THREAD_POOL_WORKERS=2
        DIGITALKIN_MAX_CONCURRENT_TASKS=50
        DIGITALKIN_MAX_QUEUED_TASKS=500
        DIGITALKIN_ADMISSION_TIMEOUT=5.0
        DIGITALKIN_BACKPRESSURE_STRATEGY=block
        DIGITALKIN_BACKPRESSURE_TIMEOUT=120.0
        DIGITALKIN_COMPLETION_TIMEOUT=180.0
        DIGITALKIN_STREAM_DRAIN_TIMEOUT=120.0
        DIGITALKIN_GRPC_TIMEOUT=30
        DIGITALKIN_SIGNAL_MAX_BATCH_SIZE=50
        DIGITALKIN_SIGNAL_FLUSH_INTERVAL=0.1
        DIGITALKIN_SIGNAL_QUEUE_SIZE=256
        DIGITALKIN_SIGNAL_SEND_RETRIES=5
        DIGITALKIN_SIGNAL_SEND_BACKOFF_MS=200
        DIGITALKIN_SETUP_CACHE_MAX=100
        DIGITALKIN_GRPC_QUERY_MAX_RETRIES=1
        DIGITALKIN_GRPC_QUERY_BACKOFF_BASE_MS=25
        DIGITALKIN_TOOL_RESOLVE_TIMEOUT=3.0
        DIGITALKIN_CONFIG_SETUP_TIMEOUT=15.0
        DIGITALKIN_GRPC_RETRY_MAX_ATTEMPTS=3
        DIGITALKIN_GRPC_RETRY_MAX_BACKOFF=3s
        DIGITALKIN_GRPC_KEEPALIVE_TIME_MS=30000
        DIGITALKIN_GRPC_MAX_RECONNECT_MS=5000
        DIGITALKIN_CHAT_HISTORY_FLUSH_THRESHOLD=5
        DIGITALKIN_LOG_DIR=/app/logs
        DIGITALKIN_TIMEZONE=Europe/Paris
    """,
}
