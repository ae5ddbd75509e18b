"""Which hosts only this machine reaches, and how a host stands by its port."""

import pytest

from dk_trio.addresses import bare, is_loopback, with_port


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "::1%lo", "localhost", "LocalHost"])
def test_only_this_machine_reaches_it(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "fe80::1%lo", "box.example", "localhost.example", "127.0.0.1.example", ""]
)
def test_others_may_reach_it(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "address"),
    [("box.example", "box.example:1"), ("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("[::1]", "[::1]:1")],
)
def test_a_host_beside_its_port(host: str, address: str) -> None:
    assert with_port(host, 1) == address


def test_a_host_that_stands_alone() -> None:
    assert bare("[FE80::1]") == "fe80::1"
