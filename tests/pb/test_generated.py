"""The committed generated code: up to date, light to import, and complete."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dk_trio.pb

from .conftest import PACKAGES

ROOT = Path(__file__).resolve().parents[2]


def test_generating_again_changes_nothing() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    plugin = Path(sys.executable).with_name("protoc-gen-python_betterproto2")
    if not plugin.exists():
        pytest.skip("betterproto2's compiler is not installed")
    if not Path(sys.executable).with_name("ruff").exists() and shutil.which("ruff") is None:
        pytest.skip("ruff, which betterproto2's compiler formats with, is not installed")
    done = subprocess.run(
        [sys.executable, ROOT / "proto/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def loaded_after(statement: str) -> list[str]:
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_importing_one_service_loads_no_other_and_no_event_loop() -> None:
    modules = loaded_after("import dk_trio.pb.agentic_mesh_protocol.module.v1")
    heavy = {"asyncio", "h2", "trio", "grpclib.server", "grpclib.client", "betterproto2.grpclib", "google.protobuf"}
    assert not heavy & set(modules)
    packages = {
        name for name in modules if name.startswith("dk_trio.pb.") and name.endswith((".v1", ".v1alpha", ".rpc"))
    }
    # The second one for the SetupVersion in ConfigSetupModule.
    assert packages == {
        "dk_trio.pb.agentic_mesh_protocol.module.v1", "dk_trio.pb.agentic_mesh_protocol.setup.v1",
    }  # fmt: skip
    assert "dateutil" not in modules
    assert "dk_trio.pb.validation" not in modules


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_a_package_exports_is_there(name: str) -> None:
    package = importlib.import_module(f"dk_trio.pb.{name}")
    for exported in package.__all__:
        assert hasattr(package, exported)
        if isinstance(getattr(package, exported), type):
            assert getattr(package, exported).__module__ == package.__name__


def test_the_public_names() -> None:
    assert sorted(dk_trio.pb.__all__) == ["DecodeError", "Message"]
    from dk_trio.pb import validation

    assert sorted(validation.__all__) == ["Violation", "validate"]


def test_no_generated_code_imports_an_event_loop() -> None:
    for path in [*(ROOT / "src/dk_trio/pb").rglob("*.py"), *(ROOT / "tests/_pb").rglob("*.py")]:
        text = path.read_text()
        assert "import asyncio" not in text
        assert "from betterproto2 import grpclib" not in text
