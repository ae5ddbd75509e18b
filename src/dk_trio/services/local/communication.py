"""Calls of other modules: of those that this process serves without its network, of any other over gRPC."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from dk_trio.services.channels import ChannelCache, Connect
from dk_trio.services.local.registry import HasRegistry
from dk_trio.services.remote.communication import GrpcCommunication


class DefaultCommunication(GrpcCommunication):
    """See `Communication`. A module that this process serves is called over memory, whatever its address.

    Args:
        mission_id: The mission of the job.
        setup_id: Its setup.
        setup_version_id: The version of the setup.
        channels: Where channels come from; of the server.
        platform: What the jobs of the process share.
        ssl_context: TLS for calls over the network, as for `rpc.open_channel`; None is plain text.
        request_metadata: Of the job's own caller.
    """

    def __init__(
        self,
        mission_id: str,
        setup_id: str,
        setup_version_id: str,
        *,
        channels: ChannelCache,
        platform: HasRegistry,
        ssl_context: ssl.SSLContext | bool | None = None,
        request_metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        super().__init__(
            mission_id,
            setup_id,
            setup_version_id,
            channels=channels,
            ssl_context=ssl_context,
            request_metadata=request_metadata,
        )
        self._process = platform.registry

    def _connect_for(self, address: str, port: int) -> Connect | None:
        return self._process.connect_for(address, port)
