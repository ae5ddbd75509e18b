"""Says which field of a message could not be encoded, and why.

Compiled encoders do not look at types. When one fails, the fields are tried one by one here.
"""

from __future__ import annotations

from typing import Any

from ._plan import Field, fields_of

__all__ = ["FieldTypeError", "FieldValueError", "explain_encoding"]

_PYTHON_TYPES = {
    "string": "str",
    "bytes": "bytes",
    "double": "float",
    "float": "float",
    "bool": "bool",
}


class FieldTypeError(TypeError):
    """A field holds a value of a type that cannot be sent as what the field is."""


class FieldValueError(ValueError):
    """A field holds a value of the right type that cannot be sent, such as a number out of range."""


def explain_encoding(message: Any, error: Exception) -> Exception:
    """The error to raise when encoding `message` failed with `error`; names the message and the field."""
    if isinstance(error, FieldTypeError | FieldValueError):
        # A message inside of this one has said it.
        return error
    from ._write_encoder import element_encoder

    name = type(message).__name__
    for field in fields_of(type(message)):
        if not hasattr(message, field.name):
            return FieldTypeError(f"{name}.{field.name} was never set: {type(message).__name__} was not initialised")
        value = getattr(message, field.name)
        if value is None and (field.presence and not field.repeated):
            continue
        path = f"{name}.{field.name}"
        try:
            if field.kind == "map":
                if not isinstance(value, dict):
                    return FieldTypeError(f"{path}: expected dict, not {type(value).__name__}")
                _try_map(field, value, element_encoder)
            elif field.repeated:
                if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
                    return FieldTypeError(f"{path}: expected list, not {type(value).__name__}")
                _try_list(field, value, element_encoder)
            else:
                element_encoder(field)(value)
        except (FieldTypeError, FieldValueError) as inner:
            return inner
        except _Element as element:
            return _described(f"{path}[{element.index!r}]", element.field, element.value, element.error)
        except Exception as found:  # noqa: BLE001  boundary: the error is what is asked for, whatever it is
            return _described(path, field, value, found)
    return error


class _Element(Exception):
    """An element of a list or map that cannot be encoded."""

    def __init__(self, field: Field, index: Any, value: Any, error: Exception) -> None:
        super().__init__(index)
        self.field = field
        self.index = index
        self.value = value
        self.error = error


def _try_list(field: Field, values: Any, element_encoder: Any) -> None:
    encode = element_encoder(field)
    for index, value in enumerate(values):
        try:
            encode(value)
        except (FieldTypeError, FieldValueError):
            raise
        except Exception as error:  # noqa: BLE001  see explain_encoding
            raise _Element(field, index, value, error) from None


def _try_map(field: Field, entries: Any, element_encoder: Any) -> None:
    assert field.key is not None
    assert field.value is not None
    encode_key, encode_value = element_encoder(field.key), element_encoder(field.value)
    for key, value in entries.items():
        try:
            encode_key(key)
        except Exception as error:  # noqa: BLE001  see explain_encoding
            raise _Element(field.key, key, key, error) from None
        try:
            encode_value(value)
        except (FieldTypeError, FieldValueError):
            raise
        except Exception as error:  # noqa: BLE001  see explain_encoding
            raise _Element(field.value, key, value, error) from None


def _described(path: str, field: Field, value: Any, error: Exception) -> Exception:
    if isinstance(error, ValueError | OverflowError) and not isinstance(error, TypeError):
        return FieldValueError(f"{path}: {error}")
    if field.kind == "message" and field.cls is not None and isinstance(value, field.cls):
        return FieldTypeError(f"{path}: {error}")  # such as a Struct, which knows the path inside of itself
    if field.kind in {"message", "enum"}:
        expected = (field.cls or field.wrapper).__name__
    else:
        expected = _PYTHON_TYPES.get(field.kind, "int")
    return FieldTypeError(f"{path}: expected {expected}, not {type(value).__name__}")
