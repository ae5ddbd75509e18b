"""The thin mixins: what they pass on, to which service, and that they catch nothing."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from dk_trio.errors import CostLimitError, DkTrioError, StorageServiceError
from dk_trio.module import TriggerHandler, mixins

from .kit import Context

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Service:
    """Records its calls; every method answers with its own name, or fails."""

    def __init__(self, error: DkTrioError | None = None) -> None:
        self.calls: list[Call] = []
        self.error = error

    def __getattr__(self, name: str) -> Any:
        async def method(*args: Any, **kwargs: Any) -> str:
            self.calls.append((name, args, kwargs))
            if self.error is not None:
                raise self.error
            return name

        return method


class Everything(mixins.ChatHistoryMixin, mixins.FilesystemMixin, mixins.BaseMixin):
    """All mixins at once."""


author = Everything()

CALLS = [
    ("cost", "add_cost", ("tokens", "input", 3), ("add", ("tokens", "input", 3), {})),
    ("cost", "get_cost", ("tokens",), ("get", ("tokens",), {})),
    ("cost", "get_costs", (["a"], ["OTHER"]), ("get_filtered", (["a"], ["OTHER"]), {})),
    ("cost", "get_costs", (), ("get_filtered", (None, None), {})),
    ("storage", "store_storage", ("c", None, {"a": 1}), ("store", ("c", None, {"a": 1}, "OUTPUT"), {})),
    ("storage", "store_storage", ("c", "r", {}, "VIEW"), ("store", ("c", "r", {}, "VIEW"), {})),
    ("storage", "read_storage", ("c", "r"), ("read", ("c", "r"), {})),
    ("storage", "update_storage", ("c", "r", {"a": 1}), ("update", ("c", "r", {"a": 1}), {})),
    ("storage", "upsert_storage", ("c", "r", {}, "LOGS"), ("upsert", ("c", "r", {}, "LOGS"), {})),
    ("filesystem", "upload_files", (["f"],), ("upload_files", (["f"],), {})),
    ("filesystem", "get_file", ("files:1",), ("get_file", ("files:1",), {"include_content": True})),
]


@pytest.mark.parametrize(("service", "method", "arguments", "expected"), CALLS)
async def test_call_is_passed_on(service: str, method: str, arguments: tuple[Any, ...], expected: Call) -> None:
    behind = Service()
    answer = await getattr(author, method)(SimpleNamespace(**{service: behind}), *arguments)
    assert behind.calls == [expected]
    assert answer == (None if method == "add_cost" else expected[0])


@pytest.mark.parametrize(("service", "method", "arguments", "expected"), CALLS)
async def test_errors_are_the_authors(service: str, method: str, arguments: tuple[Any, ...], expected: Call) -> None:
    error = CostLimitError("Enough.") if service == "cost" else StorageServiceError("No.")
    with pytest.raises(type(error)) as caught:
        await getattr(author, method)(SimpleNamespace(**{service: Service(error)}), *arguments)
    assert caught.value is error


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_log_has_the_ids_of_the_session_and_the_place_of_the_author(
    level: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "dk_trio.module"):
        getattr(author, f"log_{level}")(Context(), "read %d of %s", 3, "nine")
    (row,) = caplog.records
    assert (row.levelname, row.getMessage()) == (level.upper(), "read 3 of nine")
    assert row.mission_id == "missions:m"  # type: ignore[attr-defined]
    assert row.setup_version_id == "v"  # type: ignore[attr-defined]
    assert row.pathname == __file__


async def test_user_message_mixin_sends_outputs_as_they_are() -> None:
    context: Any = Context()
    await mixins.UserMessageMixin().send_message(context, {"protocol": "x"})
    assert context.outputs == [{"protocol": "x"}]


def test_base_mixin_is_what_the_existing_sdk_gives_to_handlers() -> None:
    for mixin in (
        mixins.CostMixin,
        mixins.AgUiMixin,
        mixins.FileHistoryMixin,
        mixins.StorageMixin,
        mixins.LoggerMixin,
    ):
        assert issubclass(mixins.BaseMixin, mixin)
    assert issubclass(TriggerHandler, mixins.BaseMixin)


def test_mixins_leave_the_authors_own_namespaces_alone() -> None:
    context: Any = Context()
    context.helpers.chat_history = "the author's"
    author.clear_ch_mission_cache(context)
    assert context.helpers.chat_history == "the author's"
