"""A strategy of one's own: where this module's user profiles come from."""

from typing import Any, Literal

from dk_trio import (
    BaseStrategy,
    DataModel,
    DataTrigger,
    ModuleContext,
    ServicesStrategy,
    SetupModel,
    TriggerHandler,
    TrioModule,
)


class Directory(BaseStrategy):
    """The methods of the service's Protocol are all that it needs. `staff` is the module's parameter."""

    def __init__(self, mission_id: str, setup_id: str, setup_version_id: str, staff: dict[str, str]) -> None:
        super().__init__(mission_id, setup_id, setup_version_id)
        self._staff = staff

    async def get_user_profile(self) -> dict[str, Any] | None:
        name = self._staff.get(self.mission_id.removeprefix("missions:"))
        return None if name is None else {"first_name": name}

    async def check_health(self) -> None:  # for the protocol healthcheck_services
        if not self._staff:
            raise RuntimeError("the directory is empty")


class Hello(DataTrigger):
    protocol: Literal["hello"] = "hello"
    text: str = ""


class Greeting(TrioModule[DataModel[Hello], DataModel[Hello], SetupModel]):
    name = "greeting"
    services_config_strategies = {"user_profile": ServicesStrategy(local=Directory)}
    services_config_params = {"user_profile": {"staff": {"m1": "Ada"}}}


@Greeting.register
class OnHello(TriggerHandler[Hello, SetupModel, Hello]):
    protocol = "hello"

    async def handle(self, input_data: Hello, setup_data: SetupModel, context: ModuleContext) -> None:
        profile = await context.user_profile.get_user_profile() or {"first_name": "stranger"}
        await context.send(Hello(text=f"hello, {profile['first_name']}"))
