"""Stop a job by its id, and ask what has become of it."""

from grpclib import GRPCError

from dk_trio import ModuleClient
from dk_trio.pb.agentic_mesh_protocol.module.v1 import ModuleStatus


async def stop_after(client: ModuleClient, wanted: int) -> ModuleStatus:
    async with client.start({"count": 1000}, protocol="import") as outputs:
        try:
            async for output in outputs:  # the first one brings the job's id
                if output["root"].get("count") == wanted:
                    await client.stop(outputs.job_id)
        except GRPCError as error:
            print(f"{error.status.name}: {error.message}")
    return await client.status(outputs.job_id)


async def unfinished(client: ModuleClient) -> list[str]:
    """The ids of the jobs that wait or run."""
    jobs = await client.jobs()
    return [job_id for job_id, status in jobs.items() if status in {ModuleStatus.STARTING, ModuleStatus.PROCESSING}]
