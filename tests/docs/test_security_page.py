"""What the page of security says, done."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import authorization
import pytest
import trio
from grpclib import GRPCError, Status
from tests.module.sample import module_with, send_one

from dk_trio import ModuleClient, Settings
from dk_trio.security import ClientSecurity, Identity
from dk_trio.settings import SecuritySettings, ServicesSettings

ON_CALL, APP = "a" * 32, "b" * 32
SECONDS = 20


def as_client(address: str, token: str) -> Any:
    security = ClientSecurity(SecuritySettings(client_token=token))
    return ModuleClient.connect(address, interceptors=security.interceptors)


async def test_the_operators_alone_stop_jobs(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"on-call {ON_CALL}\napp {APP}\n")
    settings = Settings(services=ServicesSettings(data_dir=None), security=SecuritySettings(auth_tokens_file=tokens))
    server = authorization.guarded(module_with(send_one), settings)
    with trio.fail_after(SECONDS):
        async with (
            server.running(port=0) as address,
            as_client(address, APP) as app,
            as_client(address, ON_CALL) as operator,
        ):
            with pytest.raises(GRPCError) as caught:
                await app.stop("jobs:none")
            assert (caught.value.status, caught.value.message) == (Status.PERMISSION_DENIED, "app may not stop jobs")
            with pytest.raises(GRPCError) as caught:
                await operator.stop("jobs:none")
            assert caught.value.status is Status.NOT_FOUND  # it may; there is no such job
            assert await app.jobs() == {}


def test_a_module_of_the_same_process_may_stop_jobs() -> None:
    call: Any = SimpleNamespace(path=authorization.STOP)
    authorization.only_operators_stop_jobs(call, Identity(kind="process"))
    authorization.only_operators_stop_jobs(call, Identity(kind="certificate", name="operators.mesh.example"))
    with pytest.raises(PermissionError, match=r"10\.0\.0\.7 may not"):
        authorization.only_operators_stop_jobs(call, Identity(kind="anonymous", host="10.0.0.7"))
