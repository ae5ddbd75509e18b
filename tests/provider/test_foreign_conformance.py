"""What every strategy promises, on a provider that is not ours: see `tests.conformance` and `grpcio_provider`."""

import subprocess
import sys

import pytest
import trio
from tests.cli.processes import PATIENCE
from tests.conformance.backends import _classes
from tests.conformance.kit import Jobs
from tests.conformance.test_conformance import CHECKS, REAL, attempt

from dk_trio.services.channels import ChannelCache
from dk_trio.services.provider_clients import ProviderClients

from .test_foreign_provider import DESCRIPTORS, SCRIPT

pytest.importorskip("grpc", reason="grpcio is the peer")

SERVICES = ("storage", "cost", "filesystem", "registry", "setup")  # a profile cannot be put there by a call

_ORDER = "it knows no order of files"
_REFERENCES = "it looks at no more than the message: names and references of setups may be anything"
_TRASH = "what is deleted is gone, and it refuses no deletion"
_FIELDS = "it fills a few fields of descriptors"
EXEMPT = {
    "cost": {"adds_at_once_never_pass_a_limit_together": "limits are an extension"},
    "filesystem": {
        "a_deleted_file_is_kept_out_of_sight_and_gives_its_name_free": _TRASH,
        "a_permanent_deletion_takes_deleted_files_too": _TRASH,
        "files_in_use_are_deleted_by_force_only": _TRASH,
        "statuses_of_errors_are_those_that_a_caller_gets": _TRASH,
        "an_update_changes_what_is_given": "it lets a file take the name of another",
        "pages_come_with_contents_when_they_are_asked_for": _ORDER,
        "files_come_in_the_order_that_is_asked_for": _ORDER,
        "dates_are_conditions": "it has no dates",
    },
    "registry": {
        "a_registered_module_is_seen_by_other_jobs": "its answer to RegisterModule is empty",
        "a_server_is_found_by_its_name_and_type": "they are an extension",
        "a_deregistered_module_is_ready": "it has no ModuleRegistryService",
        "a_stored_setup_is_found_with_its_module": _FIELDS,
        "a_stored_setup_without_a_version_is_found": _FIELDS,
    },
    "setup": {
        "a_content_comes_back_as_it_was": "a Struct of protobuf keeps no order of keys",
        "statuses_of_errors_are_those_that_a_caller_gets": _REFERENCES,
        "the_first_version_is_current_and_others_when_they_are_made_so": _REFERENCES,
        "a_name_is_given_once_in_a_setup_and_to_one_of_many": _REFERENCES,
        "the_current_version_cannot_be_deleted": _REFERENCES,
    },
}


def held_by(service: str) -> list[object]:
    """The checks of a service that any provider must pass."""
    return [
        check
        for check in CHECKS
        if check.service == service
        and check.holds_for(remote=True, virtual=False)
        and check.name.partition("[")[0] not in EXEMPT.get(service, {})
    ]


async def test_strategies_on_a_provider_of_other_make() -> None:
    failures: list[Exception] = []
    command = [sys.executable, SCRIPT, DESCRIPTORS]
    async with trio.open_nursery() as nursery:
        provider = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert provider.stdin is not None
        assert provider.stdout is not None
        said, heard = trio.open_memory_channel[str](100)

        async def listen() -> None:
            rest = b""
            async for chunk in provider.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if not line.startswith(b"{"):
                        await said.send(line.decode())

        try:
            with trio.fail_after(PATIENCE):
                nursery.start_soon(listen)
                target = (await heard.receive()).removeprefix("READY ")
                async with ChannelCache().opened() as channels:
                    clients = ProviderClients(channels, target=target)
                    jobs = Jobs(
                        remote=True,
                        classes=_classes("Grpc"),
                        offered={"providers": clients},
                        profiles=None,
                        database=None,
                    )
                    async with clients.opened():
                        for check in (check for service in SERVICES for check in held_by(service)):
                            await attempt(check, jobs, REAL, failures)
                            await provider.stdin.send_all(b"forget\n")
                            assert await heard.receive() == "FORGOTTEN"
        finally:
            provider.kill()
            with trio.CancelScope(shield=True):
                await provider.wait()
            nursery.cancel_scope.cancel()
    if failures:
        raise ExceptionGroup("on a provider of other make", failures)


def test_most_behaviours_need_nothing_of_ours() -> None:
    known = {(check.service, check.name.partition("[")[0]) for check in CHECKS}
    assert {(service, name) for service, names in EXEMPT.items() for name in names} <= known
    assert sum(len(held_by(service)) for service in SERVICES) >= 240
