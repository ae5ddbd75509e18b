"""Bearer tokens: who gets in, who is told what, and where a token must not go."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from tests._pb.dk_trio.test.v1 import Message
from tests.rpc.wire_client import DAY, TestService

from dk_trio import rpc
from dk_trio.errors import ConfigurationError, TokenFileError
from dk_trio.pb.grpc.health.v1 import HealthCheckRequest, HealthStub
from dk_trio.rpc import notices
from dk_trio.security import Authorization, ClientSecurity, Identity, Security
from dk_trio.security._gate import PROBES
from dk_trio.security.tokens import Token, known, read_tokens
from dk_trio.settings import SecuritySettings

from .kit import GOOD, OLD, Files, ask, calling, serving, status, until, who

WANTED = SecuritySettings(auth_token=GOOD)
SHOWN = SecuritySettings(client_token=GOOD)


# -- over a socket, which has an address ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "reason", "text"),
    [
        ({}, "no_token", "this server wants a bearer token: send it as metadata, `authorization: Bearer TOKEN`"),
        ({"authorization": f"Basic {GOOD}"}, "no_token", "`authorization` is of another scheme"),
        ({"authorization": GOOD}, "no_token", "`authorization` is of another scheme"),
        ({"authorization": f"Bearer {GOOD[:-1]}"}, "wrong_token", "the bearer token is none of this server's"),
        ({"authorization": f"Bearer {GOOD}x"}, "wrong_token", "the bearer token is none of this server's"),
        ({"authorization": "Bearer"}, "wrong_token", "the bearer token is none of this server's"),
        (
            [("authorization", f"Bearer {GOOD}"), ("authorization", f"Bearer {GOOD}")],
            "no_token",
            "`authorization` is of another scheme",
        ),
    ],
)
async def test_a_call_without_the_token(
    caplog: pytest.LogCaptureFixture, metadata: Any, reason: str, text: str
) -> None:
    security = Security(WANTED)
    async with serving(security) as (_, address), calling(address) as channel:
        for _ in range(3):
            code, told = await status(channel, metadata=metadata)
            assert code is Status.UNAUTHENTICATED
            assert text in told
            assert GOOD[:8] not in told
    assert security.statistics().calls_refused == {reason: 3}
    (record,) = [record for record in caplog.records if record.name == "dk_trio.security"]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("calls from 127.0.0.1 are refused: ")
    assert text in record.getMessage()
    assert GOOD[:8] not in caplog.text


async def test_a_call_with_the_token_and_its_handler_does_not_see_it() -> None:
    security = Security(WANTED)
    async with serving(security) as (_, address), calling(address, SHOWN) as channel:
        assert await ask(channel) == "None"
        assert await ask(channel, metadata={"authorization": f"bearer {GOOD}"}) == "None"
    assert security.statistics().calls_refused == {}


async def test_health_needs_no_token_and_reflection_does() -> None:
    async with serving(Security(WANTED)) as (_, address), calling(address) as channel:
        assert (await HealthStub(channel).check(HealthCheckRequest())).status.name == "SERVING"
        path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        with pytest.raises(GRPCError) as caught:
            await ask(channel, path)
        assert caught.value.status is Status.UNAUTHENTICATED


async def test_a_stranger_cannot_take_the_whole_server_by_watching_its_health() -> None:
    security = Security(WANTED)
    refused = 0

    async def watch(channel: rpc.Channel) -> None:
        nonlocal refused
        try:
            async for _ in HealthStub(channel).watch(HealthCheckRequest()):
                pass
        except GRPCError as error:
            assert error.status is Status.RESOURCE_EXHAUSTED
            assert error.message == (
                f"{PROBES} health checks of 127.0.0.1 without a token are in progress, which is the limit of one client"
            )
            refused += 1

    options = rpc.ServerOptions(max_concurrent_rpcs=2 * PROBES)
    async with (
        serving(security, options=options) as (server, address),
        calling(address) as strange,
        calling(address, SHOWN) as known_one,
        trio.open_nursery() as nursery,
    ):
        for _ in range(PROBES + 10):
            nursery.start_soon(watch, strange)
        await until(lambda: refused == 10)
        assert server.statistics().rpcs == PROBES
        assert await ask(known_one) == "None"
        assert (await HealthStub(known_one).check(HealthCheckRequest())).status.name == "SERVING"
        nursery.cancel_scope.cancel()
    assert security.statistics().calls_refused == {"rpcs_per_client": 10}


async def test_without_a_token_wanted_authorization_is_between_caller_and_module() -> None:
    async with serving(Security(SecuritySettings())) as (_, address), calling(address) as channel:
        assert await ask(channel, metadata={"authorization": "Bearer of-the-user"}) == "Bearer of-the-user"


# -- the file of tokens -----------------------------------------------------------------------------------------------


def test_a_file_has_names_comments_and_tokens(files: Files) -> None:
    path = files.tokens(f"# of the mesh\n\nscheduler\t{GOOD}  # since May\n  {OLD}\n")
    assert list(read_tokens(path)) == [Token("scheduler", GOOD.encode()), Token("token-4", OLD.encode())]
    assert GOOD not in repr(read_tokens(path))


def test_a_token_may_have_the_sign_of_comments_in_it(files: Files) -> None:
    """Taken for a comment, what stands behind it would be needed by nobody: `6n` would be enough."""
    [token] = read_tokens(files.tokens(f"scheduler 6n#{GOOD} #since May\n"))
    assert token == Token("scheduler", f"6n#{GOOD}".encode())


@pytest.mark.parametrize("shown", ["Bearer", "Bearer ", "bearer   "])
async def test_nobody_gets_in_by_an_empty_token(shown: str) -> None:
    """Also where a program has made the settings, which has no variable that would be refused."""
    async with serving(Security(SecuritySettings(auth_token=""))) as (_, address), calling(address) as channel:
        assert (await status(channel, metadata={"authorization": shown}))[0] is Status.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"a b {GOOD}\n", "line 1 has more than a name and a token"),
        (f"{OLD}\nscheduler {GOOD}\x07\n", "line 2 has more than a name and a token, or signs"),
        (f"schéduler {GOOD}\n", "it is not ASCII text"),
        ("# none yet\n", "has no token in it: nobody could call it"),
    ],
)
def test_a_file_that_cannot_be_used(files: Files, text: str, what: str) -> None:
    path = files.tokens(text)
    with pytest.raises(TokenFileError, match=f"^DIGITALKIN_AUTH_TOKENS_FILE={path}") as caught:
        Security(SecuritySettings(auth_tokens_file=path))
    assert what in caught.value.text
    assert GOOD not in caught.value.text
    path.unlink()
    with pytest.raises(TokenFileError, match="there is no such file"):
        Security(SecuritySettings(auth_tokens_file=path))


async def test_a_token_that_is_taken_out_of_the_file_lets_nobody_in_any_more(files: Files) -> None:
    path = files.tokens(f"old {OLD}\nnew {GOOD}\n")
    security = Security(SecuritySettings(auth_tokens_file=path))
    before = replace(SHOWN, client_token=OLD)
    async with serving(security) as (_, address), calling(address, before) as channel, calling(address, SHOWN) as good:
        await ask(channel)
        path.write_text(f"new {GOOD}\n")
        assert security._tokens is not None
        assert security._tokens.file is not None
        security._tokens.file.look()
        assert (await status(channel))[0] is Status.UNAUTHENTICATED  # on the same connection
        await ask(good)
        path.write_text("# nobody\n")
        security._tokens.file.look()
        assert (await status(good))[0] is Status.UNAUTHENTICATED
        path.write_text("a b c d\n")
        security._tokens.file.look()
        assert (await status(good))[0] is Status.UNAUTHENTICATED  # what was loaded last: nobody
    assert (security.statistics().reloads, security.statistics().reload_failures) == (2, 1)


def test_every_token_is_compared_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time each, and none is left out because another one was right."""
    compared: list[bytes] = []

    def compare(ours: bytes, theirs: bytes) -> bool:
        compared.append(ours)
        return ours == theirs

    monkeypatch.setattr("dk_trio.security.tokens.compare_digest", compare)
    tokens = [Token("a", b"1"), Token("b", b"2"), Token("c", b"3")]
    assert known(tokens, "1") == tokens[0]
    assert compared == [b"1", b"2", b"3"]
    assert known(tokens, "4") is None


def test_a_file_of_tokens_that_everybody_may_read_is_told_of(files: Files) -> None:
    path = files.tokens(GOOD)
    security = Security(SecuritySettings(auth_tokens_file=path))
    assert list(security.risks("127.0.0.1")) == []
    path.chmod(0o644)
    (told,) = security.risks("127.0.0.1")
    assert told == f"DIGITALKIN_AUTH_TOKENS_FILE={path} may be read by every user of this machine: `chmod 600 {path}`"


def test_tokens_that_can_be_guessed_are_told_by_their_names(files: Files) -> None:
    security = Security(SecuritySettings(auth_tokens_file=files.tokens(f"weak 1234\n{GOOD}\n")))
    (risk,) = security.risks("127.0.0.1")
    assert risk == "short tokens can be guessed: weak. `openssl rand -hex 32` makes a good one"


# -- calls within one process -----------------------------------------------------------------------------------------


async def test_a_module_of_this_process_is_known_and_any_other_stream_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Memory alone proves nothing: a transport of one's own may lead anywhere."""
    security = Security(WANTED)
    seen: list[Identity] = []

    async def look(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(Message())

    def note(call: rpc.CallInfo, identity: Identity) -> None:
        seen.append(identity)

    server = rpc.Server([TestService(unary=look)], interceptors=security.among([Authorization(note)]))
    with trio.fail_after(DAY):
        async with trio.open_nursery() as nursery:

            async def connect(in_process: bool) -> trio.abc.Stream:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(lambda: server.serve_stream(theirs, in_process=in_process))
                return ours

            async with calling("here", connect=lambda: connect(True)) as channel:
                await ask(channel)
            async with calling("there", connect=lambda: connect(False)) as channel:
                assert (await status(channel))[0] is Status.UNAUTHENTICATED
            nursery.cancel_scope.cancel()
    assert [identity.kind for identity in seen] == ["process"]


# -- where a token goes -----------------------------------------------------------------------------------------------


async def elsewhere() -> trio.abc.Stream:
    raise AssertionError("nothing may be sent")


async def test_a_token_does_not_leave_the_machine_in_plaintext(autojump_clock: trio.testing.MockClock) -> None:
    client = ClientSecurity(SHOWN)
    with pytest.raises(ConfigurationError, match=r"would go to 10\.0\.0\.7:50051 in plaintext") as caught:
        client.check("10.0.0.7:50051")
    assert "DIGITALKIN_CLIENT_CA" in caught.value.hint
    assert GOOD not in caught.value.text
    with trio.fail_after(DAY):
        async with rpc.open_channel("10.0.0.7:50051", interceptors=client.interceptors) as channel:
            code, text = await status(channel)
    assert code is Status.UNAUTHENTICATED
    assert "was not sent, as it would go there in plaintext" in text
    assert GOOD not in text


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/x.sock"])
def test_on_this_machine_it_may_be_plaintext(target: str) -> None:
    ClientSecurity(SHOWN).check(target)


def test_with_tls_or_by_permission_it_may_go_anywhere(files: Files) -> None:
    ClientSecurity(files.settings(client_token=GOOD)).check("10.0.0.7:1")
    ClientSecurity(replace(SHOWN, client_token_plaintext=True)).check("10.0.0.7:1")


async def test_a_call_that_brings_its_own_authorization_keeps_it() -> None:
    async with serving(Security(SecuritySettings()), unary=who) as (_, address), calling(address, SHOWN) as channel:
        assert await ask(channel, metadata={"authorization": "Bearer mine"}) == "Bearer mine"
        assert await ask(channel) == f"Bearer {GOOD}"


def test_no_repr_shows_a_token() -> None:
    settings = replace(WANTED, client_token=OLD)
    security = Security(settings)
    for thing in (settings, security, security.gate, security.client, security.statistics()):
        assert GOOD not in repr(thing)
        assert OLD not in repr(thing)


async def test_what_was_refused_is_logged_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    said = notices.Notices(logging.getLogger("dk_trio.security"))
    for _ in range(2):
        for number in range(notices.LIMIT + 50):
            said.say(logging.WARNING, f"10.0.{number}", "no_token", "refused")
    assert len(caplog.records) == notices.LIMIT + 1
    assert "are counted, and not named for a while" in caplog.records[-1].getMessage()
