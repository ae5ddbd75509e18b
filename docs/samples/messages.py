"""Messages, Struct and validation rules, without a server."""

from dk_trio.pb import DecodeError
from dk_trio.pb.agentic_mesh_protocol.module.v1 import StartModuleRequest
from dk_trio.pb.google.protobuf import Struct
from dk_trio.pb.validation import validate

request = StartModuleRequest(
    input=Struct.from_dict({"root": {"protocol": "message", "n": 3}}),
    setup_id="setups:1",
    mission_id="42",
)
data = bytes(request)

received = StartModuleRequest.FromString(data)
assert received.input is not None
print(received.input.to_dict())

for violation in validate(received):
    print(violation)

try:
    StartModuleRequest.FromString(data[:-1])
except DecodeError as error:
    print(error)

try:
    bytes(Struct.from_dict({"root": {"range": (1, 2)}}))
except TypeError as error:
    print(error)
