"""A handler that is cancelled: by its caller, by the deadline, or because the connection was lost."""

import trio
from greeter import GreeterBase, HelloReply, HelloRequest

CLEANUP_SECONDS = 5


class Greeter(GreeterBase):
    def __init__(self) -> None:
        self.busy = 0

    async def hello(self, message: HelloRequest) -> HelloReply:
        self.busy += 1
        try:
            await trio.sleep_forever()
        finally:
            # Any await in here is cancelled again at once, unless a shield with an end protects it.
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await trio.sleep(0.1)  # give back what was borrowed
                self.busy -= 1
