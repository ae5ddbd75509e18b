"""Numbers in schemas: what the doubles of a Struct and other peoples' readers of JSON can take."""

import math
from typing import Annotated, Any

import pytest
from google.protobuf import json_format, struct_pb2
from pydantic import Field
from trio.testing import MockClock

from dk_trio.module import DataModel, DataTrigger, SetupModel
from dk_trio.module.schema import input_document, secret_document, setup_document
from dk_trio.module.setup import Dynamic
from dk_trio.pb.google.protobuf import Struct

from .valid import check

INFINITE: Any = {"enum": [1.0, math.inf], "examples": [math.nan], "x-range": {"to": -math.inf}}


class Wide(DataTrigger):
    protocol: str = "wide"
    at_most: float = math.inf
    shown: float = Field(1.0, json_schema_extra=INFINITE)
    huge: float = Field(1.0, json_schema_extra={"maximum": 10**400})
    empty: list[int] = []
    length: str = Field("", min_length=1, max_length=10)


@pytest.mark.parametrize("llm", [False, True])
def test_numbers_that_json_does_not_have_are_left_out(llm: bool) -> None:
    document = input_document(DataModel[Wide], llm=llm)
    schema = check(document["json_schema"] if llm else document)
    message = struct_pb2.Struct.FromString(bytes(Struct.from_dict(document)))
    read = json_format.MessageToDict(message)  # what callers of the existing SDK read it with
    found = (read["json_schema"] if llm else read)["$defs"]["Wide"]["properties"]
    assert "default" not in found["at_most"]
    assert "maximum" not in found["huge"]
    assert found["shown"] == {"default": 1, "enum": [1], "title": "Shown", "type": "number"}
    assert found["empty"]["default"] == []
    assert (found["length"]["minLength"], found["length"]["maxLength"]) == (1, 10)
    assert schema["required"] == ["root"]


def test_the_schema_of_a_model_stays_as_it_is() -> None:
    document = secret_document(Wide)
    document["properties"].clear()
    assert Wide.model_json_schema()["properties"]["at_most"]["default"] == math.inf
    assert secret_document(Wide)["properties"]


async def test_a_fetched_infinity_is_told_as_a_failure(autojump_clock: MockClock) -> None:
    async def limits() -> list[float]:
        return [1.0, math.inf]

    class Setup(SetupModel):
        limit: Annotated[float, Dynamic(examples=limits)] = 1.0

    content = (await setup_document(Setup)).content
    field = check(content)["properties"]["limit"]
    assert "examples" not in field
    assert "inf" in field["x-dynamic-errors"]["examples"]
