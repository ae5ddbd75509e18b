import trio

from dk_trio import ModuleClient


async def main(target: str = "127.0.0.1:50055") -> None:
    async with (
        ModuleClient.connect(target) as client,
        client.start({"text": "hello wire"}, protocol="shout", timeout=30) as outputs,
    ):
        async for output in outputs:
            print(output["root"])


if __name__ == "__main__":
    trio.run(main)
