"""Whether TLS is spoken is as it was told, else as there are files for it."""

from pathlib import Path

import pytest
import trustme
from grpclib.const import Status
from tests.security.kit import Files, ask, calling, serving, status

from dk_trio.security import Security
from dk_trio.settings import SecuritySettings, Settings

SERVER, CLIENT = "SERVER_CHANNEL_SECURITY", "DIGITALKIN_CLIENT_SECURITY"


def security_of(environ: dict[str, str]) -> SecuritySettings:
    return Settings.from_environment(environ).security


@pytest.mark.parametrize(
    ("server", "client", "answer"),
    [
        pytest.param({}, {}, "", id="nobody has files"),
        pytest.param({SERVER: "insecure"}, {CLIENT: "insecure"}, "", id="both are told not to"),
        pytest.param({"files": "yes"}, {"files": "yes"}, "", id="both have files"),
        pytest.param({"files": "yes", SERVER: "secure"}, {"files": "yes", CLIENT: "secure"}, "", id="both are told to"),
        pytest.param({"files": "yes"}, {}, "connect", id="only the server has files"),
        pytest.param({}, {CLIENT: "secure"}, "connect", id="only the client is told to"),
        pytest.param({"files": "yes"}, {CLIENT: "secure"}, "certificate verify failed", id="an unknown authority"),
    ],
)
async def test_secure_or_insecure(server: dict[str, str], client: dict[str, str], answer: str, tmp_path: Path) -> None:
    files = Files(tmp_path, trustme.CA())
    cert, key = files.server
    server, client = dict(server), dict(client)
    if server.pop("files", ""):
        server |= {"DIGITALKIN_TLS_CERT": str(cert), "DIGITALKIN_TLS_KEY": str(key)}
    if client.pop("files", ""):
        client |= {"DIGITALKIN_CLIENT_CA": str(files.ca)}
    async with serving(Security(security_of(server))) as (_, address), calling(address, security_of(client)) as channel:
        if not answer:
            await ask(channel)
            return
        code, text = await status(channel)
    assert code is Status.UNAVAILABLE
    assert answer in text
