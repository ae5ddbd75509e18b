"""What parsing and serialising cost: our codec, stock betterproto2, google.protobuf (upb).

``.venv/bin/python bench/codec.py`` prints a table in microseconds, the best of several rounds for each number.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7

# 30 keys on three levels, the size of a module's typical input.
PAYLOAD = {
    "root": {
        "protocol": "message",
        "text": "Summarise the attached document in three sentences, please.",
        "language": "en",
        "temperature": 0.7,
        "max_tokens": 1024,
        "stream": True,
        "user": {"id": "users:42", "name": "Ada", "locale": "en-GB", "beta": False},
        "history": [
            {"role": "user", "content": "Hello there"},
            {"role": "assistant", "content": "Hello, how can I help?"},
            {"role": "user", "content": "With a summary"},
        ],
        "tools": ["search", "calculator", "files"],
        "limits": {"cost": 1.5, "seconds": 30, "retries": 3, "depth": None},
        "options": {"a": 1, "b": 2.5, "c": "three", "d": [1, 2, 3]},
    },
    "meta": {"trace": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": None, "sampled": True},
}


def best(function) -> float:
    """Microseconds a call, the best of several rounds."""
    # CPU time: the machine may be busy with something else.
    timer = timeit.Timer(function, timer=time.process_time)
    number = max(int(0.02 / (timer.timeit(3) / 3 + 1e-7)), 1)
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def google_classes(work: Path):
    """The same messages for google.protobuf."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    out = work / "all.bin"
    protos = [str(path.relative_to(ROOT / "proto")) for path in sorted((ROOT / "proto").rglob("*.proto"))]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", "--include_imports",
         f"--descriptor_set_out={out}", *protos], check=True,
    )  # fmt: skip
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name for file in files], pool)


def stock_modules(work: Path):
    """The same messages as betterproto2's plugin writes them, untouched."""
    protos = [str(path.relative_to(ROOT / "proto")) for path in sorted((ROOT / "proto").rglob("*.proto"))]
    target = work / "stock"
    target.mkdir()
    plugin = Path(sys.executable).parent / "protoc-gen-python_betterproto2"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}",
         f"--plugin=protoc-gen-python_betterproto2={plugin}", f"--python_betterproto2_out={target}",
         "--python_betterproto2_opt=server_generation=none", "--python_betterproto2_opt=client_generation=none",
         *protos],
        check=True, capture_output=True, cwd=work, env={"PATH": str(plugin.parent)},
    )  # fmt: skip
    sys.path.insert(0, str(work))
    from stock.agentic_mesh_protocol.module import v1 as module
    from stock.agentic_mesh_protocol.task_manager import v1 as task_manager
    from stock.google import protobuf

    return module, task_manager, protobuf


def to_dict(struct) -> dict:
    """From google.protobuf's Struct to a dict, the fastest way there is in Python."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value):
    fields = value.ListFields()
    if not fields:
        return None
    descriptor, content = fields[0]
    if descriptor.number == 5:
        return to_dict(content)
    if descriptor.number == 6:
        return [_plain(inner) for inner in content.values]
    return None if descriptor.number == 1 else content


def main() -> None:
    from dk_trio.pb.agentic_mesh_protocol.module import v1 as module
    from dk_trio.pb.agentic_mesh_protocol.task_manager import v1 as task_manager
    from dk_trio.pb.google import protobuf

    with tempfile.TemporaryDirectory() as work:
        google = google_classes(Path(work))
        stock = stock_modules(Path(work))
    rows = list(measure((module, task_manager, protobuf), stock, google))
    print(f"{'microseconds':44s}{'ours':>9s}{'stock':>10s}{'upb':>9s}{'stock/ours':>12s}{'upb/ours':>10s}")
    for name, ours, theirs, upb in rows:
        print(f"{name:44s}{ours:9.2f}{theirs:10.1f}{upb:9.2f}{theirs / ours:12.1f}{upb / ours:10.2f}")


def measure(ours, stock, google):
    """Rows of name, ours, stock, upb."""
    prefix = "agentic_mesh_protocol."
    module, task_manager, protobuf = ours
    stock_module, stock_task_manager, stock_protobuf = stock
    g_request = google[prefix + "module.v1.StartModuleRequest"]
    g_response = google[prefix + "module.v1.StartModuleResponse"]
    g_tasks = google[prefix + "task_manager.v1.SendSignalsRequest"]
    g_struct = google["google.protobuf.Struct"]

    def g_from_dict(value):
        from google.protobuf.struct_pb2 import Struct

        made = Struct()
        made.update(value)
        return made

    request = module.StartModuleRequest(
        input=protobuf.Struct.from_dict(PAYLOAD), setup_id="setups:7", mission_id="missions:9"
    )
    data = bytes(request)
    struct = bytes(request.input)
    assert to_dict(g_struct.FromString(struct)) == protobuf.Struct.FromString(struct).to_dict()
    yield (
        "Struct: bytes to dict",
        best(lambda: protobuf.Struct.FromString(struct).to_dict()),
        best(lambda: stock_protobuf.Struct.parse(struct).to_dict()),
        best(lambda: to_dict(g_struct.FromString(struct))),
    )
    yield (
        "Struct: dict to bytes",
        best(lambda: bytes(protobuf.Struct.from_dict(PAYLOAD))),
        best(lambda: bytes(stock_protobuf.Struct.from_dict(PAYLOAD))),
        best(lambda: g_from_dict(PAYLOAD).SerializeToString()),
    )
    stock_request, g_parsed = stock_module.StartModuleRequest.parse(data), g_request.FromString(data)
    parsed = module.StartModuleRequest.FromString(data)
    yield (
        "StartModuleRequest: parse (Struct unread)",
        best(lambda: module.StartModuleRequest.FromString(data)),
        best(lambda: stock_module.StartModuleRequest.parse(data)),
        best(lambda: g_request.FromString(data)),
    )
    yield (
        "StartModuleRequest: serialise as parsed",
        best(lambda: bytes(parsed)),
        best(lambda: bytes(stock_request)),
        best(g_parsed.SerializeToString),
    )
    yield (
        "StartModuleResponse from dict to bytes",
        best(lambda: bytes(module.StartModuleResponse(
            success=True, job_id="job-1", output=protobuf.Struct.from_dict({"root": {"text": "hello"}})))),
        best(lambda: bytes(stock_module.StartModuleResponse(
            success=True, job_id="job-1", output=stock_protobuf.Struct.from_dict({"root": {"text": "hello"}})))),
        best(lambda: _google_response(g_response).SerializeToString()),
    )  # fmt: skip
    batch = _signals(task_manager, protobuf, 50)
    packed = bytes(batch)
    stock_batch = stock_task_manager.SendSignalsRequest.parse(packed)
    g_batch = g_tasks.FromString(packed)
    yield (
        "SendSignalsRequest of 50 tasks: parse",
        best(lambda: task_manager.SendSignalsRequest.FromString(packed)),
        best(lambda: stock_task_manager.SendSignalsRequest.parse(packed)),
        best(lambda: g_tasks.FromString(packed)),
    )
    yield (
        "SendSignalsRequest of 50 tasks: serialise",
        best(lambda: bytes(batch)),
        best(lambda: bytes(stock_batch)),
        best(g_batch.SerializeToString),
    )


def _google_response(cls):
    made = cls(success=True, job_id="job-1")
    made.output.fields["root"].struct_value.fields["text"].string_value = "hello"
    return made


def _signals(task_manager, protobuf, count: int):
    import datetime

    now = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.UTC)
    return task_manager.SendSignalsRequest(
        tasks=[
            task_manager.Task(
                task_id=f"task-{index}",
                mission_id="missions:9",
                setup_id="setups:7",
                setup_version_id="setup_versions:8",
                action="start",
                cancellation_reason="none",
                created_at=now,
                heartbeat_at=now,
                payload=protobuf.Struct.from_dict({"index": index, "state": "running"}),
            )
            for index in range(count)
        ]
    )


if __name__ == "__main__":
    main()
