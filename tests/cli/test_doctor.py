"""`dk-trio doctor`: what it finds wrong, what it says to do, and that nothing makes it hang."""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trustme

from dk_trio import Settings, rpc
from dk_trio.cli import doctor
from dk_trio.cli._exits import Exit
from dk_trio.cli.doctor import _clock, _data, _limits, _packages, _ports, _security
from dk_trio.cli.doctor._finding import Finding, Level, fail, ok
from dk_trio.settings import SecuritySettings, ServicesSettings

from .processes import beside, here, outputs_of, provider_here

FREE = {"SERVER_CHANNEL_PORT": "0"}


def levels(findings: Any) -> list[str]:
    return [finding.level.value for finding in findings]


def found(lines: list[dict[str, Any]], check: str, level: str) -> str:
    """All that one check says at one level, with the remedies."""
    return " ".join(
        f"{line['text']} {line.get('remedy', '')}" for line in lines if (line["check"], line["level"]) == (check, level)
    )


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# -- as a command -----------------------------------------------------------------------------------------------------


def test_a_machine_without_faults(elsewhere: Path) -> None:
    done = here("doctor", **FREE)
    assert done.returncode == Exit.OK, done.stdout
    *lines, blank, total = done.stdout.decode().splitlines()
    assert blank == ""
    assert total.startswith("0 failed, ")
    checks = [line.split()[1] for line in lines]
    assert [*dict.fromkeys(checks)] == "settings ports security provider limits clock packages data".split()
    assert b"\x1b" not in done.stdout + done.stderr  # this is no terminal
    assert list(elsewhere.iterdir()) == []  # nothing was changed


def test_everything_at_once_that_is_wrong(elsewhere: Path) -> None:
    with taken() as port:
        done = here(
            "doctor",
            "--json",
            SERVER_CHANNEL_PORT=str(port),
            SERVICE_MODE="remote",
            DIGITALKIN_PROVIDER="127.0.0.1:1",
            DIGITALKIN_TLS_CERT="none.pem",
            DIGITALKIN_TLS_KEY="none.pem",
            DIGITALKIN_DATA_DIR="/proc/none",
        )
    assert done.returncode == Exit.UNFIT
    lines = outputs_of(done.stdout)
    assert "another process listens there. End that one, or set SERVER_CHANNEL_PORT" in found(lines, "ports", "fail")
    assert "DIGITALKIN_TLS_CERT=none.pem (--tls-cert) cannot be used: there is no such file" in found(
        lines, "security", "fail"
    )
    assert "The provider at 127.0.0.1:1 does not answer: UNAVAILABLE" in found(lines, "provider", "fail")
    assert "for data, cannot be written" in found(lines, "data", "fail")


def test_settings_that_cannot_be_used_do_not_keep_it_from_looking_further(elsewhere: Path) -> None:
    done = here("doctor", "--json", DIGITALKIN_WORKERS="many", SERVER_CHANNEL_PORT="http")
    assert done.returncode == Exit.UNFIT
    lines = outputs_of(done.stdout)
    told = found(lines, "settings", "fail")
    assert "DIGITALKIN_WORKERS='many'" in told
    assert "SERVER_CHANNEL_PORT='http'" in told
    assert {line["check"] for line in lines} >= {"limits", "clock", "packages", "data"}


def test_warnings_of_the_settings(elsewhere: Path) -> None:
    done = here("doctor", "--json", DIGITALKIN_WORKRES="2", **FREE)
    assert done.returncode == Exit.OK
    assert "did you mean DIGITALKIN_WORKERS" in found(outputs_of(done.stdout), "settings", "warn")


async def test_a_server_that_answers(elsewhere: Path) -> None:
    async with provider_here() as address:
        done = await beside("doctor", address, "--json", SERVICE_MODE="remote", DIGITALKIN_PROVIDER=address, **FREE)
    lines = outputs_of(done.stdout)
    for check, what in (("provider", "The provider"), ("server", "The server")):
        latency, clock = [line for line in lines if line["check"] == check]
        assert latency["text"].startswith(f"{what} at {address} answers in ")
        assert 0 < latency["min_s"] <= latency["median_s"]
        assert abs(clock["skew_s"]) < 1
        assert clock["text"].startswith(f"The clock of {what.lower()} is ")


async def test_a_server_that_is_not_ready_and_whose_clock_is_wrong(elsewhere: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("dk_trio.chance.wall_time", lambda: time.time() - 90)
    health = rpc.Health()
    health.set("readiness", False, why="its disk is full")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(rpc.Server([health]).serve, listeners)
            port = listeners[0].socket.getsockname()[1]
            done = await beside("doctor", f"127.0.0.1:{port}", "--json", **FREE)
            nursery.cancel_scope.cancel()
    lines = outputs_of(done.stdout)
    assert done.returncode == Exit.UNFIT
    assert "is NOT_SERVING: its disk is full." in found(lines, "server", "fail")
    (skew,) = [line["skew_s"] for line in lines if "skew_s" in line]
    assert -95 < skew < -85
    assert "The clock of the server is " in found(lines, "server", "warn")
    assert "behind ours" in found(lines, "server", "warn")


def test_a_peer_that_says_nothing_does_not_make_it_hang(elsewhere: Path) -> None:
    with taken() as port:
        done = here("doctor", f"127.0.0.1:{port}", "--json", "--timeout", "0.4", **FREE)
    assert done.returncode == Exit.UNFIT
    assert "answer" in found(outputs_of(done.stdout), "server", "fail")


async def test_a_check_that_hangs_is_told_and_the_others_are_shown(autojump_clock: object) -> None:
    async def hangs() -> Any:
        yield ok("begun")
        await trio.sleep_forever()

    async def works() -> Any:
        yield ok("fine")

    shown: list[tuple[str, Finding]] = []
    with trio.fail_after(86400):
        told = await doctor._examine({"disk": hangs, "clock": works}, 5, lambda *line: shown.append(line))
    assert [(check, finding.text) for check, finding in shown] == [
        ("disk", "begun"),
        ("disk", "No answer within 5 s."),
        ("clock", "fine"),
    ]
    assert levels(told) == ["ok", "fail", "ok"]


async def test_a_disk_that_hangs_is_left_behind() -> None:
    answers = threading.Event()

    def blocks() -> Iterator[Finding]:
        answers.wait(60)
        yield ok("late")

    try:
        told = await doctor._examine({"data": partial(doctor._in_thread, blocks)}, 0.01, lambda *_: None)
    finally:
        answers.set()
    assert [finding.text for finding in told] == ["No answer within 0.01 s."]


def test_on_a_terminal_there_are_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("click.echo", lambda text="", **_: print(text))
    monkeypatch.setattr(doctor, "is_terminal", lambda: True)
    doctor._show("data", fail("Full.", "Make room."), as_json=False)
    assert capsys.readouterr().out == f"\x1b[31mfail\x1b[0m  data      Full.\n{' ' * 16}Make room.\n"


# -- its checks -------------------------------------------------------------------------------------------------------


def test_ports_of_metrics_and_inspector_are_looked_at_for_each_worker() -> None:
    settings = Settings()
    with taken() as port:
        settings = replace(
            settings,
            server=replace(settings.server, port=0, workers=2),
            observe=replace(settings.observe, metrics_port=port - 1, inspector=True, inspector_port=0),
        )
        findings = list(_ports.ports(settings))
    assert any(f"Port {port} of 127.0.0.1 for metrics cannot be listened on" in each.text for each in findings)
    assert not any("inspector" in each.text for each in findings)  # any free port
    with taken() as port:
        settings = replace(settings, observe=replace(settings.observe, metrics_port=None, inspector_port=port - 1))
        findings = list(_ports.ports(settings))
    assert any(f"Port {port} of 127.0.0.1 for the inspector cannot be listened on" in each.text for each in findings)


def test_what_is_open_to_others_is_told() -> None:
    settings = Settings()
    settings = replace(settings, server=replace(settings.server, host="0.0.0.0", port=0))
    texts = [each.text for each in _ports.ports(settings) if each.level is Level.WARN]
    assert len(texts) == 2
    assert "in plaintext" in texts[0]
    assert "nobody is asked who they are" in texts[1]
    guarded = replace(settings, security=SecuritySettings(auth_token="secret"))
    assert ["in plaintext" in each.text for each in _ports.ports(guarded) if each.level is Level.WARN] == [True]


def test_a_port_that_this_user_may_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", refused)
    settings = Settings()
    told = next(iter(_ports.ports(replace(settings, server=replace(settings.server, port=443)))))
    assert told.level is Level.FAIL
    assert "this user may not take it" in told.text
    assert "Take one above 1023" in told.remedy


def test_a_host_of_the_other_internet_protocol() -> None:
    settings = Settings()
    settings = replace(settings, server=replace(settings.server, host="::", port=0))
    told = next(iter(_ports.ports(settings)))
    assert told.level is Level.OK or "address" in told.remedy  # a machine may be without


def test_a_host_that_is_not_here() -> None:
    settings = Settings()
    settings = replace(settings, server=replace(settings.server, host="192.0.2.1", port=1024))
    refused = next(iter(_ports.ports(settings)))
    assert refused.level is Level.FAIL
    assert "Take an address of this machine" in refused.remedy


def test_a_host_that_can_be_no_name() -> None:
    settings = Settings()
    settings = replace(settings, server=replace(settings.server, host="a..b"))
    refused = next(iter(_ports.ports(settings)))
    assert (refused.level, refused.text) == (Level.FAIL, "The host 'a..b' is not an address of this machine.")


def certificate(folder: Path, **arguments: Any) -> dict[str, Path]:
    issued = trustme.CA().issue_cert("localhost", **arguments)
    cert, key = folder / "cert.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return {"tls_cert": cert, "tls_key": key}


@pytest.mark.parametrize(("days", "level"), [(300, "ok"), (20, "warn"), (-1, "fail")])
def test_how_long_a_certificate_holds(tmp_path: Path, days: int, level: str) -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    span = {"not_before": now - timedelta(days=30), "not_after": now + timedelta(days=days, minutes=5)}
    first, *_ = _security.security(SecuritySettings(**certificate(tmp_path, **span)))
    assert first.level.value == level
    assert ("has expired" if days < 0 else "for localhost, by ") in first.text
    assert days < 0 or first.facts["days_left"] == pytest.approx(days, abs=0.1)


def test_a_key_that_everybody_may_read(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    files["tls_key"].chmod(0o644)
    first, *_ = _security.security(SecuritySettings(**files))
    assert first.level is Level.WARN
    assert first.remedy.startswith("`chmod 600 ")


@pytest.mark.parametrize(
    ("text", "level", "told"),
    [
        (None, "fail", "there is no such file"),
        ("", "warn", "it lets nobody in"),
        ("short", "warn", "can be guessed: token-1"),
        ("bob kT9dQeW3uZ5rY8pL\n", "ok", "has 1 tokens"),
    ],
)
def test_files_of_tokens(tmp_path: Path, text: str | None, level: str, told: str) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    last = list(_security.security(SecuritySettings(auth_tokens_file=path)))[-1]
    assert last.level.value == level
    assert told in last.text


def test_too_few_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    told = _limits._files(400)
    assert told.level is Level.WARN
    assert "256 file descriptors are fewer than the 400 RPCs" in told.text
    assert "`ulimit -n 500`" in told.remedy
    assert _limits._files(100).level is Level.OK


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root of files as Linux has them: 16 GiB, and no control groups."""
    for path, text in {
        "proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "0::/pods/mine\n",
        "proc/sys/net/core/somaxconn": "4096\n",
    }.items():
        write(tmp_path / path, text)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_memory_and_cpus_are_those_of_the_control_groups(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    assert (_limits._cpus(machine), _limits._memory(machine)) == (6, 16 * 2**30)
    write(machine / "sys/fs/cgroup/pods/cpu.max", "250000 100000\n")  # of the group around ours
    write(machine / "sys/fs/cgroup/pods/mine/cpu.max", "max 100000\n")
    write(machine / "sys/fs/cgroup/pods/mine/memory.max", f"{2**30}\n")
    assert (_limits._cpus(machine), _limits._memory(machine)) == (2.5, 2**30)


def test_control_groups_of_the_first_version(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    write(machine / "proc/self/cgroup", "3:cpu,cpuacct:/a\n2:memory:/a\n1:name=systemd:/a\n0::/\n")
    write(machine / "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "150000\n")
    write(machine / "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n")
    write(machine / "sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{2**31}\n")
    assert (_limits._cpus(machine), _limits._memory(machine)) == (1.5, 2**31)


def test_a_preset_that_is_too_large_for_the_machine(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    findings = list(_limits.limits(Settings.load(environ={}, preset="large"), machine))
    assert any(
        "4 CPUs and 16.0 GiB of memory, but the preset 'large' is for 32 CPUs and 64 GiB" in each.text
        for each in findings
    )
    fitting = _limits.limits(Settings.load(environ={}, preset="small"), machine)
    assert "warn" not in [each.level.value for each in fitting if "CPUs" in each.text]


def test_a_default_that_counts_cpus_which_are_not_ours(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 32)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    last = list(_limits.limits(Settings.load(environ={}), machine))[-1]
    assert last.level is Level.WARN
    assert "is 6400 since this machine has 32 CPUs, but this process may use 2" in last.text
    assert last.remedy == "Set it, for instance to 400."
    chosen = Settings.load(environ={"DIGITALKIN_MAX_CONCURRENT_RPCS": "6400"})
    assert "since this machine" not in list(_limits.limits(chosen, machine))[-1].text


def test_a_backlog_that_the_system_cuts(machine: Path) -> None:
    write(machine / "proc/sys/net/core/somaxconn", "128\n")
    told = _limits._backlog(machine)
    assert told is not None
    assert told.level is Level.WARN
    assert "sysctl -w net.core.somaxconn=1024" in told.remedy
    (machine / "proc/sys/net/core/somaxconn").unlink()
    assert _limits._backlog(machine) is None  # it is another system than Linux
    assert "accepted" not in "".join(each.text for each in _limits.limits(Settings.load(environ={}), machine))


@pytest.mark.parametrize(
    ("step", "ticks", "level"),
    [(0.0, 1.0, "ok"), (5.0, 1.0, "warn"), (0.0, -1.0, "fail"), (-2e9, 1.0, "fail")],
    ids=["right", "moved", "backwards", "past"],
)
async def test_clocks(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, step: float, ticks: float, level: str
) -> None:
    now = {"monotonic": 100.0, "day": 1.8e9}
    if step < -10:
        now["day"] += step
        step = 0.0

    def monotonic() -> float:
        now["monotonic"] += 0.01 * ticks
        return now["monotonic"]

    def day() -> float:
        now["day"] += 0.0
        return now["day"] + (now["monotonic"] - 100.0) + (step if now["monotonic"] > 100.05 else 0.0)

    monkeypatch.setattr(_clock, "time", SimpleNamespace(monotonic=monotonic, time=day))
    with trio.fail_after(86400):
        findings = [finding async for finding in _clock.clock()]
    assert levels(findings) == [level]


def test_a_package_that_a_setting_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        _packages,
        "requires",
        lambda _: ["trio>=0.31", 'surely-missing>=1; extra == "metrics"', 'trio; extra == "test"'],
    )
    settings = Settings()
    core, extras = _packages._required()
    assert (core, extras) == (["trio"], {"metrics": ["surely-missing"]})
    assert levels(_packages.packages(settings)) == ["ok", "ok"]
    settings = replace(settings, observe=replace(settings.observe, metrics_port=9000))
    *_, missing = _packages.packages(settings)
    assert missing.level is Level.FAIL
    assert missing.text == "DIGITALKIN_METRICS_PORT=9000 needs surely-missing."
    assert missing.remedy == "`pip install 'dk-trio[metrics]'`."


@pytest.mark.parametrize(
    ("extra", "needs", "why"),
    [
        ("otel", {"traces_endpoint": "http://a:1"}, "DIGITALKIN_TRACES_ENDPOINT=http://a:1"),
        ("inspector", {"inspector": True}, "DIGITALKIN_INSPECTOR=true"),
        ("profiling", {"profiler": "yappi"}, "DIGITALKIN_PROFILER=yappi"),
    ],
)
def test_each_setting_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, extra: str, needs: dict[str, Any], why: str
) -> None:
    settings = Settings()
    settings = replace(settings, observe=replace(settings.observe, **needs))
    for name, level in (("surely-missing", Level.FAIL), ("trio", Level.OK)):
        asked = ["trio", "dk-trio[otel]", f'{name}; extra == "{extra}"']
        monkeypatch.setattr(_packages, "requires", lambda _, asked=asked: asked)
        *_, last = _packages.packages(settings)
        assert last.level is level
        assert (f"{why} needs surely-missing." == last.text) is (level is Level.FAIL)


def test_without_metadata_of_the_package_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def sources(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr(_packages, "requires", sources)
    assert _packages._required() == ([], {})


def keeping(directory: Path | None, **observe: Any) -> Settings:
    settings = Settings()
    return replace(
        settings, services=ServicesSettings(data_dir=directory), observe=replace(settings.observe, **observe)
    )


def test_a_directory_that_another_process_has_locked(tmp_path: Path) -> None:
    lock = tmp_path / "echo" / "dk-trio.lock"
    write(lock, f"{os.getpid()}\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        texts = [each.text for each in _data.data(keeping(tmp_path))]
        assert f"{lock.parent} is in use by the process {os.getpid()}." in texts
    assert not any("in use" in each.text for each in _data.data(keeping(tmp_path)))


@pytest.mark.parametrize(("free", "level"), [(2**40, "ok"), (2**29, "warn"), (2**20, "fail")])
def test_a_disk_that_gets_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    *_, room = _data.data(keeping(tmp_path / "not" / "there"))
    assert room.level.value == level
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept() -> None:
    assert levels(_data.data(keeping(None))) == ["ok"]


def test_logs_and_profiles_that_cannot_be_written() -> None:
    places = {"log_file": Path("/proc/none/log"), "profiler": "yappi", "profile_output_dir": Path("/proc/none")}
    kept, log, profiles = _data.data(keeping(None, **places))
    assert kept.level is Level.OK
    assert (log.level, profiles.level) == (Level.WARN, Level.WARN)  # it serves without them
    assert "or set DIGITALKIN_LOG_FILE to another place" in log.remedy
    assert "or set DIGITALKIN_PROFILE_OUTPUT_DIR to another place" in profiles.remedy
    *_, log = _data.data(keeping(None, log_dir=Path("/proc/none")))
    assert (log.level, "DIGITALKIN_LOG_DIR" in log.remedy) == (Level.WARN, True)


def test_every_line_of_json_is_whole(elsewhere: Path) -> None:
    for line in here("doctor", "--json", **FREE).stdout.splitlines():
        assert {"check", "level", "text"} <= json.loads(line).keys()
