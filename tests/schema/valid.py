"""What every schema here must be: valid JSON Schema 2020-12, and true of the instances of its model."""

from typing import Any

from jsonschema import Draft202012Validator

from dk_trio.pb.google.protobuf import Struct


def check(schema: dict[str, Any], *instances: Any) -> dict[str, Any]:
    """The schema, when it is valid, is met by these instances, and can go on the wire."""
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for instance in instances:
        validator.validate(instance)
    assert Struct.parse(bytes(Struct.from_dict(schema))).to_dict() == schema
    return schema


def refuses(schema: dict[str, Any], instance: Any) -> bool:
    return not Draft202012Validator(schema).is_valid(instance)
