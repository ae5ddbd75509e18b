"""Targets, name resolution and happy eyeballs, over a network of pretend hosts."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from dk_trio.rpc.resolver import ConnectError, Resolver, Target, interleave_families, parse_target

V4 = socket.AF_INET
V6 = socket.AF_INET6


@pytest.mark.parametrize(
    ("text", "host", "port", "authority"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051, "127.0.0.1:50051"),
        ("localhost:1", "localhost", 1, "localhost:1"),
        ("dns:///example.org:443", "example.org", 443, "example.org:443"),
        ("dns:example.org:443", "example.org", 443, "example.org:443"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("dns:///[fe80::1%eth0]:80", "fe80::1%eth0", 80, "[fe80::1%eth0]:80"),
    ],
)
def test_tcp_targets(text: str, host: str, port: int, authority: str) -> None:
    target = parse_target(text)
    assert (target.host, target.port, target.path, target.authority) == (host, port, "", authority)


@pytest.mark.parametrize(
    ("text", "path"),
    [("unix:/run/a.sock", "/run/a.sock"), ("unix:///run/a.sock", "/run/a.sock"), ("unix:a.sock", "a.sock")],
)
def test_unix_targets(text: str, path: str) -> None:
    target = parse_target(text)
    assert (target.path, target.authority) == (path, "localhost")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        ":50051",
        "::1:50051",
        "localhost:0",
        "localhost:65536",
        "localhost:port",
        "http://localhost:1",
        "dns://8.8.8.8/example.org:443",
        "dns://example.org:443",
        "unix:",
        "unix://relative",
    ],
)
def test_bad_targets_are_named_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=r"unix|port") as caught:
        parse_target(text)
    assert repr(text) in str(caught.value)


def test_families_take_turns() -> None:
    addresses = [(V6, ("a",)), (V6, ("b",)), (V6, ("b",)), (V4, ("c",)), (V6, ("d",)), (V4, ("e",))]
    assert [address for _, (address,) in interleave_families(addresses)] == ["a", "c", "b", "e", "d"]


class PretendNetwork(trio.abc.HostnameResolver, trio.abc.SocketFactory):
    """Hosts by name, and for each address when a connect succeeds (seconds) or that it fails."""

    def __init__(self) -> None:
        self.hosts: dict[str, list[str]] = {}
        self.outcome: dict[str, float | OSError] = {}
        self.lookups: list[float] = []
        self.log: list[tuple[float, str]] = []
        self.open = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        self.lookups.append(trio.current_time())
        host = host.decode()  # trio has encoded it for the wire of DNS
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (V6 if ":" in address else V4, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.hosts[host]
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError

    def socket(self, family=V4, type=socket.SOCK_STREAM, proto=0):  # noqa: A002
        return PretendSocket(self, family)


class PretendSocket(trio.socket.SocketType):
    type = socket.SOCK_STREAM

    def __init__(self, network: PretendNetwork, family: int) -> None:
        self._network = network
        self._family = family
        self.address: str | None = None
        network.open += 1
        self._open = True

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return False

    async def connect(self, address):
        network = self._network
        network.log.append((trio.current_time(), address[0]))
        outcome = network.outcome[address[0]]
        if isinstance(outcome, OSError):
            await trio.lowlevel.checkpoint()
            raise outcome
        await trio.sleep(outcome)
        self.address = address[0]

    def setsockopt(self, *args):
        pass

    def getpeername(self):
        return (self.address, 1)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._network.open -= 1


@pytest.fixture
async def network() -> PretendNetwork:
    network = PretendNetwork()
    trio.socket.set_custom_hostname_resolver(network)
    trio.socket.set_custom_socket_factory(network)
    return network


def resolver(text: str = "host:1") -> Resolver:
    return Resolver(parse_target(text), min_interval=0.5)


async def test_second_address_wins_after_its_head_start(autojump_clock, network: PretendNetwork) -> None:
    network.hosts["host"] = ["::1", "1.1.1.1"]
    network.outcome = {"::1": 100.0, "1.1.1.1": 0.1}
    with trio.fail_after(60):
        stream = await resolver().connect()
    assert stream.socket.address == "1.1.1.1"
    assert network.log == [(0.0, "::1"), (0.25, "1.1.1.1")]
    assert trio.current_time() == pytest.approx(0.35)
    assert network.open == 1  # the loser is closed


async def test_failure_starts_the_next_at_once(autojump_clock, network: PretendNetwork) -> None:
    network.hosts["host"] = ["1.1.1.1", "2.2.2.2"]
    network.outcome = {"1.1.1.1": ConnectionRefusedError(111, "Connection refused"), "2.2.2.2": 0.0}
    with trio.fail_after(60):
        stream = await resolver().connect()
    assert stream.socket.address == "2.2.2.2"
    assert trio.current_time() == 0


async def test_all_failures_are_told(autojump_clock, network: PretendNetwork) -> None:
    network.hosts["host"] = ["1.1.1.1", "2.2.2.2"]
    network.outcome = {
        "1.1.1.1": ConnectionRefusedError(111, "Connection refused"),
        "2.2.2.2": OSError(101, "Network is unreachable"),
    }
    with trio.fail_after(60), pytest.raises(ConnectError) as caught:
        await resolver().connect()
    text = str(caught.value)
    assert "'host:1'" in text
    assert "1.1.1.1 port 1: Connection refused" in text
    assert "2.2.2.2 port 1: Network is unreachable" in text
    assert "check that the server runs" in text
    assert network.open == 0


async def test_cancel_leaves_no_socket(autojump_clock, network: PretendNetwork) -> None:
    network.hosts["host"] = ["1.1.1.1", "2.2.2.2", "3.3.3.3"]
    network.outcome = dict.fromkeys(network.hosts["host"], 100.0)
    with trio.move_on_after(1) as scope:
        await resolver().connect()
    assert scope.cancelled_caught
    assert len(network.log) == 3
    assert network.open == 0


async def test_cancel_after_the_win_leaves_no_socket(autojump_clock, network: PretendNetwork) -> None:
    network.hosts["host"] = ["1.1.1.1"]
    network.outcome = {"1.1.1.1": 1.0}
    with trio.move_on_at(1.0) as scope:
        await resolver().connect()
    assert network.open == (0 if scope.cancelled_caught else 1)


async def test_names_are_looked_up_at_most_every_half_second(autojump_clock, network: PretendNetwork) -> None:
    network.hosts["host"] = ["1.1.1.1"]
    network.outcome = {"1.1.1.1": 0.0, "2.2.2.2": 0.0}
    under_test = resolver()
    seen = []
    with trio.fail_after(60):
        for _ in range(11):
            seen.append((await under_test.connect()).socket.address)
            network.hosts["host"] = ["2.2.2.2"]
            await trio.sleep(0.125)
    assert network.lookups == [0.0, 0.5, 1.0]
    assert seen == ["1.1.1.1"] * 4 + ["2.2.2.2"] * 7
    assert repr(under_test) == "<Resolver 'host:1' addresses=1 lookups=3>"


async def test_an_address_that_connects_and_does_not_serve_is_the_last_choice(
    autojump_clock, network: PretendNetwork
) -> None:
    network.hosts["host"] = ["1.1.1.1", "2.2.2.2", "3.3.3.3"]
    network.outcome = dict.fromkeys(network.hosts["host"], 0.0)
    several = resolver()

    async def connected() -> str:
        return (await several.connect()).socket.address

    with trio.fail_after(60):
        assert [await connected() for _ in range(4)] == ["1.1.1.1", "2.2.2.2", "3.3.3.3", "1.1.1.1"]
        assert await connected() == "2.2.2.2"
        several.confirm()
        assert await connected() == "1.1.1.1"
        network.hosts["host"] = ["1.1.1.1"]
        await trio.sleep(1)
        assert [await connected() for _ in range(2)] == ["1.1.1.1", "1.1.1.1"]


async def test_unknown_name_is_told_and_asked_again(autojump_clock, network: PretendNetwork) -> None:
    under_test = resolver("dns:///nowhere:1")
    with trio.fail_after(60):
        for _ in range(2):
            with pytest.raises(ConnectError, match="cannot resolve 'nowhere' of target 'dns:///nowhere:1'"):
                await under_test.connect()
    assert len(network.lookups) == 2


async def test_unix_socket(tmp_path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with trio.fail_after(5):
            stream = await Resolver(parse_target(f"unix:{path}"), min_interval=0).connect()
            await stream.aclose()


async def test_missing_unix_socket_is_told(tmp_path) -> None:
    target = Target("unix:x", path=str(tmp_path / "missing"))
    with trio.fail_after(5), pytest.raises(ConnectError, match=r"cannot connect to 'unix:x': .*No such file"):
        await Resolver(target, min_interval=0).connect()
