"""Its handler, in `news/triggers/headlines_trigger.py`."""

import asyncio

from digitalkin import ModuleContext, TriggerHandler
from digitalkin.models.module import DataModel
from news.module import Ask, Headline, News, NewsSetup


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
        texts = await asyncio.gather(*(self.read(feed, input_data.topic, context) for feed in setup_data.feeds))
        for text in sorted(texts):
            await context.callbacks.send_message(DataModel[Headline](root=Headline(text=f"{text} ({times})")))

    async def read(self, feed: str, topic: str, context: ModuleContext) -> str:
        try:
            await asyncio.wait_for(asyncio.sleep(0.01), timeout=5)
        except TimeoutError:
            return f"{feed}: no answer"
        await self.add_cost(context, f"{feed}-{context.session.job_id}", "feed", 1)
        return f"{feed}: news about {topic}"
