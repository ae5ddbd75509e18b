"""The generated classes, services and rules against the facts of the wire contract, which are kept here as data."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from grpclib.const import Cardinality

from dk_trio.pb._plan import fields_of
from dk_trio.pb._rules import RULES

PREFIX = "agentic_mesh_protocol."
FACTS = [
    line.split("\t")
    for line in Path(__file__).with_name("data").joinpath("wire_contract.tsv").read_text().splitlines()
    if not line.startswith("#")
]
WRAPPED = {"google.protobuf.Timestamp": "Timestamp"}


def package_of(name: str):
    """The module of a name like ``cost.v1.Cost``, and the last part."""
    package, _, last = name.rpartition(".")
    ours = package.startswith("dk_trio.")
    return importlib.import_module(f"dk_trio.pb.{'' if ours else PREFIX}{package.removeprefix(PREFIX)}"), last


def class_of(name: str):
    module, last = package_of(name)
    return getattr(module, last)


def facts(kind: str) -> list[list[str]]:
    return [fact[1:] for fact in FACTS if fact[0] == kind]


def test_the_facts_are_complete() -> None:
    assert len({fact[0] for fact in facts("field")}) == 129
    assert len({fact[0] for fact in facts("enum")}) == 11
    assert len(facts("method")) == 56
    assert len({path.split("/")[1] for path, *_ in facts("method")}) == 9


def test_every_field_has_the_number_type_and_label_of_the_contract() -> None:
    expected: dict[str, dict[str, list[str]]] = {}
    for message, *field in facts("field"):
        expected.setdefault(message, {})
        if field:
            expected[message][field[0]] = field
    for message, fields in expected.items():
        ours = {field.name: field for field in fields_of(class_of(message))}
        assert ours.keys() == fields.keys(), message
        for name, (_, number, kind, type_name, label, *_) in fields.items():
            field = ours[name]
            assert field.number == int(number), f"{message}.{name}"
            assert field.kind == kind, f"{message}.{name}"
            if kind == "map":
                assert f"{field.key.kind},{field.value.kind}" == type_name
            elif field.wrapper is not None:
                assert field.wrapper.__name__ == WRAPPED[type_name]
            elif type_name:
                assert field.cls.__name__ == type_name.rpartition(".")[2]
            assert field.repeated == (label == "repeated")
            if label.startswith("oneof:"):
                assert field.oneof == label.removeprefix("oneof:")
            elif kind != "message":
                assert field.presence == (label == "optional"), f"{message}.{name}"


def _renamed(enum: str, value: str) -> str:
    """betterproto2 strips the enum's own name from the names of its values."""
    cls = class_of(enum)
    names = cls.betterproto_renamed_proto_names_to_value()
    return cls(names[value]).name if value in names else value


def test_every_enum_value_has_the_number_of_the_contract() -> None:
    found: dict[str, dict[str, int]] = {}
    for enum, value, number in facts("enum"):
        found.setdefault(enum, {})[_renamed(enum, value)] = int(number)
    for enum, values in found.items():
        assert {member.name: member.value for member in class_of(enum)} == values


def test_every_method_is_served_under_its_path_with_its_types() -> None:
    shapes = {("unary", "unary"): Cardinality.UNARY_UNARY, ("unary", "stream"): Cardinality.UNARY_STREAM}
    handlers = {}
    for service in {path.split("/")[1] for path, *_ in facts("method")}:
        module, name = package_of(service)
        handlers |= getattr(module, f"{name}Base")().__mapping__()
    assert len(handlers) == 56
    for path, request, response, *shape in facts("method"):
        handler = handlers[path]
        assert handler.cardinality is shapes[tuple(shape)]
        assert handler.request_type is class_of(request)
        assert handler.reply_type is class_of(response)


def test_the_rules_are_those_of_the_contract() -> None:
    expected = {
        f"{PREFIX}{message}.{field[0]}": json.loads(field[-1]) for message, *field in facts("field") if len(field) == 6
    }
    ours = {
        f"{message}.{field}": sorted([name, value] for name, value in rules)
        for message, fields in RULES.items()
        for field, rules in fields.items()
        if message.startswith(PREFIX)
    }
    assert ours == expected
    assert len(expected) > 250


@pytest.mark.parametrize("message", sorted(RULES))
def test_every_rule_names_a_field_of_its_class(message: str) -> None:
    assert RULES[message].keys() <= {field.name for field in fields_of(class_of(message))}
