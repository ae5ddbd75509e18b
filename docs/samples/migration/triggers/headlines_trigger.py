"""Its handler, in `migration/triggers/headlines_trigger.py`."""

import trio

from dk_trio import DataModel, ModuleContext, TriggerHandler
from migration.after import Ask, Headline, News, NewsSetup


@News.register
class OnHeadlines(TriggerHandler[Ask, NewsSetup, Headline]):
    protocol = "headlines"
    description = "Headlines about a topic"
    input_format = Ask
    output_format = Headline

    async def handle(self, input_data: Ask, setup_data: NewsSetup, context: ModuleContext) -> None:
        record = await context.storage.read("interests", input_data.topic)
        times = record.data.times + 1 if record else 1
        await context.storage.upsert("interests", input_data.topic, {"times": times})
        texts: list[str] = []
        async with trio.open_nursery() as nursery:
            for feed in setup_data.feeds:
                nursery.start_soon(self.read, feed, input_data.topic, context, texts)
        for text in sorted(texts):
            await context.callbacks.send_message(DataModel[Headline](root=Headline(text=f"{text} ({times})")))

    async def read(self, feed: str, topic: str, context: ModuleContext, texts: list[str]) -> None:
        try:
            with trio.fail_after(5):
                await trio.sleep(0.01)
        except trio.TooSlowError:
            texts.append(f"{feed}: no answer")
            return
        await self.add_cost(context, f"{feed}-{context.session.job_id}", "feed", 1)
        texts.append(f"{feed}: news about {topic}")
