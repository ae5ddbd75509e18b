"""Each kind of validation rule, its boundary, and how rules combine."""

from __future__ import annotations

import datetime

import pytest

from dk_trio.pb.agentic_mesh_protocol.cost.v1 import (
    CostConfig,
    CostFilter,
    CostType,
    GetCostConfigResponse,
    GetCostsRequest,
)
from dk_trio.pb.agentic_mesh_protocol.filesystem.v1 import (
    FileFilter,
    FileResult,
    FileStatus,
    FileType,
    UpdateFileRequest,
    UploadFileData,
    UploadFilesRequest,
    UploadFilesResponse,
)
from dk_trio.pb.agentic_mesh_protocol.module.v1 import (
    GetModuleStatusResponse,
    ModuleStatus,
    StartModuleRequest,
    StartModuleResponse,
    StopModuleResponse,
)
from dk_trio.pb.agentic_mesh_protocol.module_registry.v1 import DiscoverSearchRequest, RegisterRequest
from dk_trio.pb.agentic_mesh_protocol.registry.v1 import (
    DiscoverModulesRequest,
    DiscoverSetupsResponse,
    RegisterModuleRequest,
)
from dk_trio.pb.agentic_mesh_protocol.storage.v1 import ReadRecordRequest
from dk_trio.pb.agentic_mesh_protocol.task_manager.v1 import ListHeartbeatsRequest, SendSignalsRequest, Task
from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import UserProfile
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.validation import Violation, _from_re2, validate

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def broken(message) -> set[tuple[str, str]]:
    return {(violation.field_path, violation.rule) for violation in validate(message)}


def test_a_valid_message_has_no_violations() -> None:
    request = StartModuleRequest(input=Struct.from_dict({}), setup_id="setups:1", mission_id="missions:1")
    assert validate(request) == []


def test_a_violation_says_what_where_and_which_value() -> None:
    request = StartModuleRequest(input=Struct.from_dict({}), setup_id="1", mission_id="missions:1")
    (violation,) = validate(request)
    assert violation == Violation("setup_id", "prefix", "must start with 'setups:'", "1")
    assert str(violation) == "setup_id: must start with 'setups:', got '1'"


def test_required_fails_alone() -> None:
    assert broken(StartModuleRequest()) == {
        ("input", "required"), ("setup_id", "required"), ("mission_id", "required"),
    }  # fmt: skip


def test_required_with_presence_accepts_the_default() -> None:
    assert broken(DiscoverSearchRequest(module_type="tool", name="", description="d")) == {("name", "min_len")}
    assert broken(DiscoverSearchRequest(module_type="tool", description="d")) == {("name", "required")}


def test_an_unset_optional_field_has_no_rules() -> None:
    assert broken(StopModuleResponse()) == set()
    assert broken(StopModuleResponse(job_id="x")) == {("job_id", "prefix")}


def test_a_field_without_presence_is_checked_at_its_default() -> None:
    assert {("query", "min_len"), ("limit", "gte"), ("organization_id", "prefix")} <= broken(DiscoverModulesRequest())


@pytest.mark.parametrize(("limit", "rules"), [(0, {"gte"}), (1, set()), (1000, set()), (1001, {"lte"}), (-1, {"gte"})])
def test_bounds_are_inclusive(limit: int, rules: set[str]) -> None:
    found = broken(GetCostsRequest(mission_id="missions:1", limit=limit))
    assert found == {("limit", rule) for rule in rules}


@pytest.mark.parametrize(("rate", "valid"), [(0.0, False), (5e-324, True), (-1.0, False), (float("nan"), False)])
def test_gt(rate: float, valid: bool) -> None:
    found = broken(CostConfig(name="n", cost_type=CostType.TIME, unit="s", rate=rate))
    assert (found == set()) is valid


@pytest.mark.parametrize(("port", "rules"), [(0, {"required"}), (1, set()), (65535, set()), (65536, {"lte"})])
def test_required_and_bounds(port: int, rules: set[str]) -> None:
    found = broken(RegisterModuleRequest(module_id="modules:1", address="a", port=port, version="1"))
    assert found == {("port", rule) for rule in rules}


def test_not_in() -> None:
    found = broken(
        UpdateFileRequest(
            context="missions:1", file_id="files:1", new_name="n", content_type="t", status=FileStatus.ACTIVE
        )
    )
    assert found == {("file_type", "not_in")}


def test_in() -> None:
    request = RegisterRequest(module_id="1", module_type="robot", address="a", port=1, version="1")
    assert broken(request) == {("module_type", "in")}
    request.module_type = "kin"
    assert broken(request) == set()


def test_defined_only_refuses_unknown_numbers() -> None:
    response = GetModuleStatusResponse(status=ModuleStatus(99), job_id="jobs:1")
    assert broken(response) == {("status", "defined_only")}
    response.status = ModuleStatus.SUCCESS
    assert broken(response) == set()


@pytest.mark.parametrize(
    ("context", "valid"),
    [
        ("missions:1", True),
        ("setup_versions:1", True),
        ("missions:", False),
        ("setups:1", False),
        (" missions:1", False),
        ("missions:\n", False),
    ],
)
def test_pattern(context: str, valid: bool) -> None:
    found = broken(ReadRecordRequest(context=context, collection="c", record_id="r"))
    assert found == (set() if valid else {("context", "pattern")})


def test_the_end_in_a_pattern_is_the_very_end() -> None:
    assert broken(FileFilter(context="missions:a\n")) == {("context", "pattern")}
    assert _from_re2(r"^a[$]\$$") == r"^a[$]\$\Z"


def test_min_len_counts_bytes_of_bytes_and_characters_of_text() -> None:
    good = UploadFileData(
        context="default", name="é", file_type=FileType.CODE, content_type="t", content=b"x", status=FileStatus.ACTIVE
    )
    assert broken(good) == set()
    good.content = b""
    assert broken(good) == {("content", "required")}


@pytest.mark.parametrize(
    ("email", "valid"),
    [("a@b", True), ("a.b+c@d-e.f", True), ("a", False), ("a@", False), ("a@-b", False), ("a@b\n", False)],
)
def test_email(email: str, valid: bool) -> None:
    profile = UserProfile(
        user_id="users:1", organisation_id="organisations:1", email=email, first_name="A", last_name="B",
        creation_date=NOW, update_date=NOW, locale="en",
    )  # fmt: skip
    assert broken(profile) == (set() if valid else {("email", "email")})


def test_min_items() -> None:
    assert broken(UploadFilesRequest()) == {("files", "required")}


def test_each() -> None:
    found = broken(CostFilter(names=["a", ""], cost_types=[CostType.TIME, 0], setup_version_ids=["x"]))
    assert found == {
        ("names[1]", "each.min_len"), ("cost_types[1]", "each.not_in"), ("setup_version_ids[0]", "each.prefix"),
    }  # fmt: skip


def test_each_cel_and_each_required() -> None:
    assert broken(ListHeartbeatsRequest(task_ids=["a", ""])) == {("task_ids[1]", "each.cel.task_id_length")}
    assert ("setups[0]", "each.required") in broken(DiscoverSetupsResponse(setups=[None]))


def test_cel_size_and_starts_with() -> None:
    task = Task(
        task_id="t", mission_id="missions:", setup_id="x", setup_version_id="setup_versions:1", action="a",
        cancellation_reason="none", created_at=NOW,
    )  # fmt: skip
    assert broken(task) == {
        ("mission_id", "cel.mission_id_length"),
        ("setup_id", "cel.setup_id_prefix"),
        ("setup_id", "cel.setup_id_length"),
    }


def test_messages_inside_are_checked_with_their_path() -> None:
    assert ("tasks[1].task_id", "required") in broken(SendSignalsRequest(tasks=[Task(), Task()]))
    assert ("configs[0].name", "required") in broken(GetCostConfigResponse(configs=[CostConfig()]))
    assert broken(UploadFilesResponse(results=[FileResult(error="no")])) == set()


def test_what_real_servers_send_breaks_the_rules_and_so_no_module_server_may_enforce_them() -> None:
    response = StartModuleResponse(success=True, job_id="0b0b8f5c-7c0f-4c1b-9a55-3a3c8c1b6c11")
    assert broken(response) == {("output", "required"), ("job_id", "prefix")}


def test_a_message_without_rules_is_valid() -> None:
    assert validate(Struct.from_dict({"a": 1})) == []
