"""The generated service and stub, on base classes that need no event loop of their own."""

from gen.greeter import v1 as generated
from gen.greeter.v1 import HelloReply as HelloReply
from gen.greeter.v1 import HelloRequest as HelloRequest

from dk_trio import rpc


class GreeterBase(rpc.ServiceBase, generated.GreeterBase):
    """What a service implements."""


class GreeterStub(rpc.ServiceStub, generated.GreeterStub):
    """What a client calls."""
