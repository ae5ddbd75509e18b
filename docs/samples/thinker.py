from typing import Literal

from opentelemetry import trace

from dk_trio import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule

tracer = trace.get_tracer(__name__)


class Question(DataTrigger):
    protocol: Literal["question"] = "question"
    text: str


class Thinker(TrioModule[DataModel[Question], DataModel[Question], SetupModel]):
    name = "thinker"


@Thinker.register
class Think(TriggerHandler[Question, SetupModel, Question]):
    protocol = "question"

    async def handle(self, input_data: Question, setup_data: SetupModel, context: ModuleContext) -> None:
        with tracer.start_as_current_span("thinking"):
            answer = input_data.text.strip("?")
        await context.send(Question(text=answer))
