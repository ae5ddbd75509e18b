"""A server that tells every minute what it does."""

import trio
from shouter import Shouter

from dk_trio import ModuleServer, Settings


async def tell(server: ModuleServer, every: float = 60) -> None:
    while True:
        now = server.statistics()
        print(
            f"{now.jobs.running} running, {now.jobs.queued} waiting, {now.admission.at_gate} at the gate; "
            f"{now.jobs.succeeded} succeeded, {now.jobs.failed} failed, {now.jobs.cancelled} cancelled, "
            f"{now.jobs.refused} refused; longest wait {now.admission.longest_wait:.0f} s",
            flush=True,
        )
        await trio.sleep(every)


async def main(port: int | None = None) -> None:
    server = ModuleServer(Shouter, settings=Settings.from_environment())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell, server)
        await server.serve(port=port)  # until SIGTERM or SIGINT, then it drains
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
