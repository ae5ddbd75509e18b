"""The models and the class. The handlers stand in files of their own, which the discoverer finds."""

from typing import Literal

from dk_trio import DataModel, DataTrigger, ModuleDiscoverer, SetupModel, TrioModule


class Note(DataTrigger):
    """A text for somebody."""

    protocol: Literal["message"] = "message"
    text: str


class Letter(Note):
    """A text that has a subject."""

    subject: str


class Parcel(DataTrigger):
    """Several things."""

    protocol: Literal["parcel"] = "parcel"
    things: list[str]


class Receipt(DataTrigger):
    protocol: Literal["receipt"] = "receipt"
    line: str


class Postbox(TrioModule[DataModel[Letter | Note | Parcel], DataModel[Receipt], SetupModel]):
    name = "postbox"
    triggers_discoverer = ModuleDiscoverer(packages=["postbox.triggers"])
