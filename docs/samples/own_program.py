"""A server in a program of its own, watched as `dk-trio serve` watches one: metrics, traces, access log, inspector."""

import trio
from shouter import Shouter

from dk_trio import ModuleServer, Settings
from dk_trio.observe import Observation, Observed


async def main(port: int | None = None) -> None:
    settings = Settings.from_environment()
    observation = Observation(settings)
    server = ModuleServer(
        Shouter,
        settings=settings,
        interceptors=observation.interceptors,
        client_interceptors=observation.client_interceptors,
        hooks=observation.hooks,
    )
    async with observation.opened(Observed(modules=lambda: [server])):
        await server.serve(port=port)


if __name__ == "__main__":
    trio.run(main)
