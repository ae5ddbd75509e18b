"""Several processes behind one address: `dk-trio serve --workers N`.

HTTP/2 keeps one connection for all calls of a client, so to share the load is to share connections, and whoever decides
must know what each process has. A parent accepts, and hands each connection to the least loaded of its workers. With
SO_REUSEPORT the system would decide by a hash, and eight clients meet in one of two processes soon enough.

    report = await run_workers(2, command, host="127.0.0.1", port=50055, ...)  # in the parent

    link = WorkerLink(Post.parse(text))  # in a worker, which `command` has started
    async with link.opened(rpcs=..., answer=server.directory.answer):
        server.directory.join(link.ask)
        await server.serve(listeners=[link.listener], signals=link.orders, others_stay=link.others_stay, ...)

Parent and worker know each other by two socket pairs. Over one go descriptors of connections (`_handover`); over the
other messages (`_control`): load and heartbeats, readiness, orders, and questions about jobs that another worker has.

The worker's side is in `dk_trio.workers.link`: a parent loads nothing of what serves modules.
"""

from ._group import GroupReport as GroupReport
from ._places import WorkerStartError as WorkerStartError
from ._post import Post as Post
from ._spawn import run_workers as run_workers
