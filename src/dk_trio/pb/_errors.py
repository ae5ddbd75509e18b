"""What the codec raises.

One error for bytes that are not the message they claim to be. Mistakes of the program (a wrong Python type or a number
out of range in a field that is to be sent) are plain ``TypeError`` and ``ValueError``: they are not the peer's fault.
"""

from __future__ import annotations

__all__ = ["DecodeError"]


class DecodeError(ValueError):
    """Received bytes that are not a valid serialised message.

    Attributes:
        message_type: name of the message class that was asked to parse, e.g. ``"StartModuleRequest"``.
        field_path: path of the field at fault from that message, e.g. ``"tasks[0].mission_id"``; empty when the fault
            lies outside of any known field.
        offset: position of the fault in bytes from the start of the parsed data.
        reason: what is wrong there.
    """

    def __init__(self, message_type: str, field_path: str, offset: int, reason: str) -> None:
        where = f"{message_type}.{field_path}" if field_path else message_type
        super().__init__(f"cannot parse {where} at byte {offset}: {reason}")
        self.message_type = message_type
        self.field_path = field_path
        self.offset = offset
        self.reason = reason

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str, int, str]]:
        return type(self), (self.message_type, self.field_path, self.offset, self.reason)
