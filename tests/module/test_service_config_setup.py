"""ConfigSetupModule: from a form to a setup that jobs run with, and what is told when there is none."""

from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status

from dk_trio import SetupModel
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    ConfigSetupModuleRequest,
    ConfigSetupModuleResponse,
    ModuleServiceStub,
)
from dk_trio.pb.agentic_mesh_protocol.setup.v1 import SetupVersion
from dk_trio.routing import CONFIG_SETUP_MODULE

from .sample import Message
from .service_kit import (
    FORM,
    Source,
    begin,
    configure,
    goes_on,
    logged,
    serving,
    settings_for,
    settings_of,
    sleeps,
    start,
    told_of,
)


class Needed(SetupModel):
    key: str
    count: int = 1


# --- success ---------------------------------------------------------------------------------------------------------


async def test_the_form_becomes_the_setup_that_jobs_run_with(autojump_clock: object) -> None:
    source = Source({"prefix": "old "})
    async with serving(setups=source) as (_, client):
        created = datetime(2026, 1, 2, tzinfo=UTC)
        reply = await configure(client, FORM, creation_date=created)
        assert reply.success
        version = reply.setup_version
        assert (version.id, version.setup_id, version.version) == ("setup_versions:7", "setups:s", "7")
        assert version.creation_date == created
        assert version.content.to_dict() == {**FORM, "resolved_tools": {}}
        async with client.start({"protocol": "message", "text": "hi"}, setup_id="setups:s") as outputs:
            info, message, _ = [output["root"] async for output in outputs]
        assert message["text"] == "> hi"
        assert (info["setup_id"], info["setup_version_id"]) == ("setups:s", "setup_versions:7")
        assert source.asked == []  # what was configured here is newer than what the source has


async def test_the_client_gives_the_content(autojump_clock: object) -> None:
    async with serving() as (_, client):
        content = await client.config_setup(FORM, setup_id="setups:s", setup_version_id="setup_versions:2")
        assert content == {**FORM, "resolved_tools": {}}
        assert (await start(client, "hi", setup_id="s")).texts[1] == "> hi"  # one id, with or without its prefix
        assert (await start(client, "hi", setup_id="setups:other")).texts[1] == "hi"


async def test_run_config_setup_turns_the_form_into_something_else(autojump_clock: object) -> None:
    seen: list[Any] = []

    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        seen.append((type(self.context), context.session, context.request_metadata["x-tenant"]))
        return config_setup_data.model_copy(update={"prefix": config_setup_data.prefix.upper()})

    async with serving(run_config_setup=run_config_setup) as (_, client):
        content = await client.config_setup(
            {"prefix": "a "},
            setup_id="setups:s",
            setup_version_id="setup_versions:2",
            mission_id="missions:m",
            metadata={"x-tenant": "t"},
        )
        assert content == {"prefix": "A ", "resolved_tools": {}}
        assert (await start(client, "hi")).texts[1] == "A hi"
    ((_, ids, tenant),) = seen
    assert (ids.setup_id, ids.setup_version_id, ids.mission_id) == ("setups:s", "setup_versions:2", "missions:m")
    assert tenant == "t"


async def test_a_dict_is_a_setup_too(autojump_clock: object) -> None:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        return {"prefix": "d ", "found": ["t1"]}

    async with serving(run_config_setup=run_config_setup) as (_, client):
        # Keys that the format does not have are the author's, and for the caller to store.
        assert await client.config_setup({}, setup_id="setups:s") == {"prefix": "d ", "found": ["t1"]}
        assert (await start(client, "hi")).texts[1] == "d hi"


async def test_what_the_author_keeps_of_it_cannot_change_it(autojump_clock: object) -> None:
    class Loose(SetupModel):
        names: list[Any]

    kept: dict[str, Any] = {"names": [["one"]]}

    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        return kept

    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Message(text=repr(setup_data.names)))

    async with serving(setup_format=Loose, run_config_setup=run_config_setup, handle=handle) as (_, client):
        await client.config_setup({"names": []}, setup_id="setups:s")
        kept["names"][0].append("two")
        assert (await start(client)).texts[1] == "[['one']]"


async def test_it_is_no_job(autojump_clock: object) -> None:
    called: list[str] = []

    async def hook(self: Any, *_: Any) -> None:
        called.append("hook")

    async with serving(initialize=hook, cleanup=hook) as (server, client):
        signals: list[Any] = []
        with server.signals.observe(signals.append):
            await client.config_setup(FORM)
        assert called == signals == []
        assert await client.jobs() == {}
        assert server.statistics().jobs.ended == {}


async def test_a_module_whose_setup_has_required_fields(autojump_clock: object) -> None:
    async def handle(self: Any, input_data: Any, setup_data: Any, context: Any) -> None:
        await context.send(Message(text=setup_data.key, count=setup_data.count))

    async with serving(setup_format=Needed, handle=handle) as (_, client):
        assert (await start(client)).status is Status.NOT_FOUND  # it has no default
        told = await told_of(client.config_setup({"count": 2}, setup_id="setups:s"))
        assert (told.status, told.reason) == (Status.INVALID_ARGUMENT, "INVALID_SETUP")
        assert told.message == "Setup 'setups:s' does not fit Sample: key: field required."
        await client.config_setup({"key": "k", "count": 2}, setup_id="setups:s")
        assert (await start(client)).texts[1] == "k"


async def test_a_configured_setup_outlives_its_place_in_the_cache(autojump_clock: object) -> None:
    async with serving(settings=settings_of(SETUP_CACHE_MAX=2, SETUP_CACHE_TTL=60)) as (server, client):
        await client.config_setup(FORM, setup_id="setups:s", setup_version_id="setup_versions:7")
        for number in range(5):
            await start(client, setup_id=f"setups:{number}")
        assert server.statistics().setups.evicted >= 3
        assert (await start(client, "hi")).texts[1] == "> hi"
        await trio.sleep(3600)
        async with client.start({"protocol": "message", "text": "hi"}, setup_id="setups:s") as outputs:
            info, message, _ = [output["root"] async for output in outputs]
        assert (message["text"], info["setup_version_id"]) == ("> hi", "setup_versions:7")
        await client.config_setup({"prefix": "new "}, setup_id="setups:s")
        assert (await start(client, "hi")).texts[1] == "new hi"


async def test_it_replaces_a_fetch_that_is_under_way(autojump_clock: object) -> None:
    async with serving(setups=Source({"prefix": "old "}, delay=20)) as (_, client), trio.open_nursery() as nursery:
        waiting = await begin(nursery, client, "hi")
        await client.config_setup(FORM, setup_id="setups:s")
        await waiting.told.ended.wait()
        assert (waiting.told.texts[1], waiting.told.seconds) == ("> hi", 0)


# --- what is wrong with the request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"prefix": 3}, "Setup 'setups:s' does not fit Sample: prefix: input should be a valid string (got 3"),
        ({"prefix": None}, "prefix: input should be a valid string (got None)"),
    ],
)
async def test_a_form_that_does_not_fit(autojump_clock: object, form: dict[str, Any], message: str) -> None:
    async with serving() as (server, client):
        told = await told_of(client.config_setup(form, setup_id="setups:s"))
        assert (told.status, told.reason) == (Status.INVALID_ARGUMENT, "INVALID_SETUP")
        assert message in told.message
        assert server.statistics().admission.started == 0


async def test_a_request_that_names_no_setup(autojump_clock: object) -> None:
    async with serving() as (_, client):
        stub = ModuleServiceStub(client.channel)
        for request in (ConfigSetupModuleRequest(), ConfigSetupModuleRequest(setup_version=SetupVersion(id="v"))):
            told = await told_of(stub.config_setup_module(request))
            assert (told.status, told.reason) == (Status.INVALID_ARGUMENT, "INVALID_SETUP")
            assert told.message == "The request names no setup. Fill setup_version.id and .setup_id."


async def test_a_form_that_is_no_struct(autojump_clock: object) -> None:
    class Bad:
        def SerializeToString(self) -> bytes:
            setup_version = b"\x0a\x03\x12\x01s"  # `setup_id` "s"
            return setup_version + b"\x12\x03\x0a\x05x"  # `content`, whose first entry claims more than there is

    async with serving() as (_, client):
        call = ModuleServiceStub(client.channel)._unary_unary(CONFIG_SETUP_MODULE, Bad(), ConfigSetupModuleResponse)
        told = await told_of(call)
    assert told.status is Status.INVALID_ARGUMENT
    assert "The content is not a valid google.protobuf.Struct" in told.message


# --- admission, leaving, shutdown ------------------------------------------------------------------------------------


async def test_a_full_server_refuses_it_too(autojump_clock: object) -> None:
    ran: list[str] = []

    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        ran.append(config_setup_data.prefix)
        return config_setup_data

    settings = settings_for(slots=1, BACKPRESSURE_STRATEGY="reject")
    async with (
        serving(run_config_setup=run_config_setup, settings=settings) as (_, client),
        trio.open_nursery() as nursery,
    ):
        job = await begin(nursery, client)
        told = await told_of(configure(client))
        assert (told.status, told.reason) == (Status.RESOURCE_EXHAUSTED, "NO_FREE_SLOT")
        assert told.facts == {"limit": "DIGITALKIN_MAX_CONCURRENT_TASKS", "size": "1", "waited": "0"}
        assert told.retry_after is not None
        assert ran == []
        await client.stop(job.job_id)
        await job.told.ended.wait()
        assert (await told_of(configure(client))).status is Status.OK
        assert ran == ["> "]


async def test_it_takes_a_slot_while_it_runs(autojump_clock: object) -> None:
    settings = settings_for(slots=1, BACKPRESSURE_STRATEGY="reject")
    async with (
        serving(run_config_setup=sleeps, settings=settings) as (_, client),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(told_of, configure(client))
        await trio.testing.wait_all_tasks_blocked()
        assert (await start(client)).reason == "NO_FREE_SLOT"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("queued", [False, True])
async def test_a_caller_that_leaves_cancels_it(autojump_clock: object, queued: bool) -> None:
    ended: list[str] = []

    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    async with (
        serving(run_config_setup=run_config_setup, settings=settings_for(slots=1, MAX_QUEUED_TASKS=1)) as (
            server,
            client,
        ),
        trio.open_nursery() as nursery,
    ):
        if queued:
            await begin(nursery, client)
        with trio.move_on_after(5):
            await configure(client)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ([] if queued else ["cancelled"])
        assert server.statistics().admission.admitted == (1 if queued else 0)
        nursery.cancel_scope.cancel()


async def test_code_that_ends_after_its_caller_has_left_has_done_nothing(autojump_clock: object) -> None:
    async with serving(run_config_setup=goes_on, setups=Source({"prefix": "old "})) as (_, client):
        with trio.move_on_after(5):
            await configure(client)
        await trio.sleep(2000)
        assert (await start(client, "hi")).texts[1] == "old hi"


@pytest.mark.parametrize("way", ["leaves", "never reads"])
async def test_a_setup_whose_answer_was_not_taken_is_not_used(autojump_clock: object, way: str) -> None:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        return {"prefix": "new " * 1_000_000}  # more than a caller takes without reading

    version = SetupVersion(id="setup_versions:7", setup_id="setups:s")
    async with (
        serving(run_config_setup=run_config_setup, setups=Source({"prefix": "old "})) as (server, client),
        client.channel.request(
            CONFIG_SETUP_MODULE, Cardinality.UNARY_UNARY, ConfigSetupModuleRequest, ConfigSetupModuleResponse
        ) as call,
    ):
        await call.send_message(ConfigSetupModuleRequest(setup_version=version), end=True)
        await trio.sleep(299)
        assert server.statistics().admission.running == 0
        assert server.statistics().rpc.rpcs == 1
        if way == "leaves":
            await call.cancel()
        await trio.sleep(2)
        assert server.statistics().rpc.rpcs == 0
        assert (await start(client, "hi")).texts[1] == "old hi"
        if way == "never reads":
            await call.cancel()


@pytest.mark.parametrize("hook", [sleeps, goes_on], ids=["prompt", "goes on"])
async def test_a_shutdown(autojump_clock: object, hook: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(run_config_setup=hook) as (server, client), trio.open_nursery() as nursery:
        told = []

        async def call() -> None:
            told.append(await told_of(configure(client)))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        stuck = await server.drain(10)
        assert trio.current_time() - started < 20
        assert [each.status for each in told] == [Status.UNAVAILABLE]
        assert "shutting down" in told[0].message
        assert repr(stuck) == ("[]" if hook is sleeps else "[<ConfigSetup of setups:s of Sample>]")
        await trio.sleep(2000)
    assert logged(caplog, "jobs that go on although they were cancelled: 1") == (hook is goes_on)


async def test_a_shutdown_lets_it_end_within_the_grace(autojump_clock: object) -> None:
    async def run_config_setup(self: Any, context: Any, config_setup_data: Any) -> Any:
        await trio.sleep(8)
        return config_setup_data

    async with serving(run_config_setup=run_config_setup) as (server, client), trio.open_nursery() as nursery:
        told = []

        async def call() -> None:
            told.append(await told_of(configure(client)))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert await server.drain(10) == []
        assert [each.status for each in told] == [Status.OK]
