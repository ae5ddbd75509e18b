"""What a form looks like now: the fetchers are asked, and the values stand in the class that comes back."""

from typing import Annotated, Any

import trio
from pydantic import Field

from dk_trio import Dynamic, SetupModel

stock = ["apples"]  # stands for a service


async def in_stock() -> list[str]:
    await trio.sleep(0.01)
    return list(stock)


class Order(SetupModel):
    fruit: Annotated[str, Dynamic(enum=in_stock)] = "apples"
    note: str = Field(default="", json_schema_extra={"config": True})


async def form() -> dict[str, Any]:
    model = await Order.get_clean_model(config_fields=True, hidden_fields=False, force=True)
    return model.model_json_schema()["properties"]
