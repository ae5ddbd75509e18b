"""A provider in a program of one's own, and a call of one of its services."""

from pathlib import Path

import trio

from dk_trio import rpc
from dk_trio.pb.agentic_mesh_protocol.user_profile.v1 import GetUserProfileRequest, UserProfileServiceStub
from dk_trio.provider import Provider, SqliteDatabase


async def main(directory: Path = Path("mesh")) -> None:
    provider = Provider(SqliteDatabase(directory), directory=directory)
    async with provider.running(port=0) as address:  # any free port
        await provider.put_user_profile("missions:m", {"first_name": "Ada"})
        async with rpc.open_channel(address) as channel:
            stub = UserProfileServiceStub(channel)
            reply = await stub.get_user_profile(GetUserProfileRequest(mission_id="missions:m"))
            if reply.user_profile is not None:
                print(f"hello, {reply.user_profile.first_name}")


if __name__ == "__main__":
    trio.run(main)
