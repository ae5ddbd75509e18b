"""The files of examples/deployment fit each other and the program: names of variables, options, ports, times."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from dk_trio import Settings
from dk_trio.cli import commands
from dk_trio.settings import all_variables

ROOT = Path(__file__).parents[2]
DEPLOYMENT = ROOT / "examples" / "deployment"
FILES = sorted(DEPLOYMENT.iterdir())
KNOWN = {name for variable in all_variables() for name in variable.names} | {"DIGITALKIN_PRESET"}

# What follows the end of the grace, see docs/operations.md.
CLEANUPS = 23


def read(name: str) -> str:
    return (DEPLOYMENT / name).read_text(encoding="utf-8")


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(read("kubernetes.yaml")))


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for manifest in manifests():
        if "template" in manifest.get("spec", {}):
            pod = manifest["spec"]["template"]["spec"]
            for container in pod["containers"]:
                yield pod, container


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of dk-trio that a file runs."""
    for _, container in containers():
        yield "kubernetes.yaml", container["args"]
    for service in yaml.safe_load(read("compose.yaml"))["services"].values():
        if service["image"] == "dk-trio":
            yield "compose.yaml", service["command"]
            if "healthcheck" in service:
                yield "compose.yaml", service["healthcheck"]["test"][2:]
    for unit in DEPLOYMENT.glob("*.service"):
        [line] = re.findall(r"^ExecStart=/opt/dk-trio/bin/dk-trio (.*)$", unit.read_text(), re.MULTILINE)
        yield unit.name, shlex.split(line)
    for line in re.findall(r"^(?:CMD|HEALTHCHECK .*CMD) (\[.*\])$", read("Dockerfile"), re.MULTILINE):
        yield "Dockerfile", [part for part in json.loads(line) if part != "dk-trio"]


@pytest.mark.parametrize(("name", "arguments"), [*command_lines()])
def test_commands_are_understood(name: str, arguments: list[str]) -> None:
    command: click.Command = commands
    context = click.Context(commands, info_name="dk-trio")
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        child = command.get_command(context, arguments[0])
        if child is None:
            break
        command, arguments = child, arguments[1:]
    present = [
        argument.replace("/srv/text_transform.py", str(ROOT / "examples" / "text_transform.py"))
        for argument in arguments
    ]
    command.make_context(command.name, present, parent=context, resilient_parsing=False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_variables_exist(path: Path) -> None:
    assert set(re.findall(r"\b(?:DIGITALKIN|SERVER)_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))) <= KNOWN


def test_settings_of_the_manifests_are_legal_and_fit() -> None:
    for _, container in containers():
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert not Settings.from_environment(environment).warnings


def test_a_pod_gets_the_time_that_its_drain_may_take() -> None:
    for pod, container in containers():
        grace = float(container["args"][container["args"].index("--grace") + 1])
        after = 20 if container["args"][0] == "provider" else CLEANUPS
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod["terminationGracePeriodSeconds"] >= before + grace + after, container["name"]
    for name, service in yaml.safe_load(read("compose.yaml"))["services"].items():
        if "stop_grace_period" in service:
            command = service["command"]
            grace = float(command[command.index("--grace") + 1]) if "--grace" in command else 10
            after = 20 if name == "provider" else CLEANUPS
            assert float(service["stop_grace_period"].removesuffix("s")) >= grace + after
    for unit in DEPLOYMENT.glob("*.service"):
        grace, stop = (
            float(re.search(pattern, unit.read_text())[1]) for pattern in (r"--grace (\d+)", r"StopSec=(\d+)")
        )
        assert stop >= grace + (20 if "provider" in unit.name else CLEANUPS)


def test_probes_services_and_scrapes_meet_the_ports() -> None:
    ports: dict[str, set[int]] = {}
    for pod, container in containers():
        del pod
        own = {port["containerPort"] for port in container["ports"]}
        assert {container[probe]["grpc"]["port"] for probe in ("readinessProbe", "livenessProbe")} <= own
        assert container["readinessProbe"]["grpc"]["service"] == "readiness"
        assert container["livenessProbe"]["grpc"]["service"] == "liveness"
        [metrics] = [int(it["value"]) for it in container["env"] if it["name"] == "DIGITALKIN_METRICS_PORT"]
        assert metrics in own
    for manifest in manifests():
        labels = manifest.get("spec", {}).get("template", {}).get("metadata", {}).get("labels")
        if labels:
            [container] = manifest["spec"]["template"]["spec"]["containers"]
            ports[labels["app"]] = {port["containerPort"] for port in container["ports"]}
            annotations = manifest["spec"]["template"]["metadata"]["annotations"]
            assert int(annotations["prometheus.io/port"]) in ports[labels["app"]]
    for manifest in manifests():
        if manifest["kind"] == "Service":
            assert {port["port"] for port in manifest["spec"]["ports"]} <= ports[manifest["spec"]["selector"]["app"]]
    [scrape] = yaml.safe_load(read("prometheus.yaml"))["scrape_configs"]
    services = yaml.safe_load(read("compose.yaml"))["services"]
    for target in scrape["static_configs"][0]["targets"]:
        name, port = target.split(":")
        assert services[name]["environment"]["DIGITALKIN_METRICS_PORT"] == port


def test_files_that_others_name_are_there() -> None:
    for service in yaml.safe_load(read("compose.yaml"))["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (DEPLOYMENT / source).is_file(), source
    for source in re.findall(r"^COPY ((?!--)[^\n]*)$", read("Dockerfile"), re.MULTILINE):
        for name in source.split()[:-1]:
            assert (ROOT / name).exists(), name
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"!src", "!examples", "!pyproject.toml", "!constraints.txt"} <= set(ignored)


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in DEPLOYMENT.glob("*.service"):
        text = unit.read_text(encoding="utf-8").replace("/opt/dk-trio/bin/dk-trio", "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
        done = subprocess.run(
            [program, "verify", "--man=no", str(tmp_path / unit.name)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        told = [line for line in done.stderr.splitlines() if "dk-trio" in line]
        assert not told


def test_the_page_shows_every_file() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert [path.name for path in FILES if f"`{path.name}`" not in page] == []
