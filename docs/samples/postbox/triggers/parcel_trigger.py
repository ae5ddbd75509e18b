"""A handler as an async generator: what it yields is sent."""

from collections.abc import AsyncIterator

from dk_trio import ModuleContext, SetupModel, TriggerHandler
from postbox.module import Parcel, Postbox, Receipt


@Postbox.register
class OnParcel(TriggerHandler[Parcel, SetupModel, Receipt]):
    protocol = "parcel"
    description = "Takes a parcel apart"

    async def handle(
        self, input_data: Parcel, setup_data: SetupModel, context: ModuleContext
    ) -> AsyncIterator[Receipt]:
        for thing in input_data.things:
            yield Receipt(line=f"parcel: {thing}")
