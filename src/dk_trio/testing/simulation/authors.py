"""What the authors of a simulation's modules have written: jobs that do what a plan says, and note what they did.

One module class serves all servers. What it does in a job is drawn from the seed before the simulation begins; the name
of the job, by which it finds its plan, comes as the id of its mission.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any, ClassVar, Final, Literal, Protocol

import trio
from pydantic import BaseModel

from dk_trio.errors import DkTrioError, ModuleCallError, SessionEndedError
from dk_trio.module import DataModel, DataTrigger, ModuleContext, SetupModel, TriggerHandler, TrioModule
from dk_trio.services.filesystem import UploadFileData

LARGE: Final = 70_000
"""Characters in a large output: more than the smallest window of a stream, so that its `send` has to wait."""

SHORT: Final = 2.5
"""Seconds that a cleanup has in any case; one that takes longer may be cut off."""

PREFIX: Final = "missions:"
"""Before the name of a job, as it travels."""


def setup_of(server: str) -> str:
    """The id of the setup of all jobs of a server."""
    return f"setups:{server}"


STORES: Final = frozenset({"store", "cost", "file"})
"""Kinds of acts that write something that stays."""

MUTE: Final = 0.15
"""Share of these whose reply is lost."""


Fails = Literal["", "initialize", "cleanup"]

_FAILS: Final[tuple[Fails, ...]] = ("", "initialize", "cleanup")

Kind = Literal[
    "send",
    "large",
    "burst",
    "sleep",
    "linger",
    "call",
    "store",
    "cost",
    "file",
    "swallow",
    "shield",
    "raise",
    "group",
    "spoil",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that an author's handler does.

    Attributes:
        kind: What. `linger` sleeps for longer than a signal takes; `swallow` sleeps and goes on when it is cancelled;
            `shield` cannot be cancelled meanwhile; `spoil` answers a cancellation with an error of its own.
        seconds: How long it takes, where it is a sleep.
        count: How many, of a burst.
        child: The name of the job that is called, and where.
        server: The host of the child.
        timeout: Of the call, in seconds; None: what the handler has itself.
        mute: The reply to what it stores is lost.
    """

    kind: Kind
    seconds: float = 0
    count: int = 1
    child: str = ""
    server: str = ""
    timeout: float | None = None
    mute: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the code of one job does.

    Attributes:
        acts: What its handler does.
        initialize: Seconds that `initialize` takes.
        cleanup: Seconds that `cleanup` takes.
        parting: Whether `cleanup` sends an output.
        fails: A hook that raises at its end.
    """

    acts: tuple[Act, ...]
    initialize: float = 0
    cleanup: float = 0
    parting: bool = False
    fails: Fails = ""

    @property
    def decent(self) -> bool:
        """Whether its job succeeds if nothing happens to it, and harms nobody."""
        bad = {"raise", "group", "call", *STORES}
        return not self.fails and bad.isdisjoint(act.kind for act in self.acts)


class Stage(Protocol):
    """Where authors play."""

    def plan(self, job: str) -> Plan:
        """What the code of a job does."""
        ...

    def run_name(self, mission: str, job_id: str) -> str:
        """How a job is called in the history."""
        ...

    def note(self, actor: str, event: str, /, **fields: Any) -> object:
        """Note an event, unless the server that notes it is dead."""
        ...

    def lose_reply(self) -> None:
        """What the provider commits next is not acknowledged to this server."""
        ...


STAGE: Final[ContextVar[Stage]] = ContextVar("dk_trio simulation stage")
"""Set around each server, and inherited by the tasks of its jobs."""


class Play(DataTrigger):
    """Do what the plan says."""

    protocol: Literal["play"] = "play"


class Said(DataTrigger):
    """One output of a plan."""

    protocol: Literal["said"] = "said"
    number: int
    text: str = ""


class PlayInput(DataModel[Play]):
    """What actors take."""


class SaidOutput(DataModel[Said]):
    """What actors say."""


class Script(SetupModel):
    """The setup of all jobs."""

    tone: str = "plain"


class Fact(BaseModel):
    """A record that an author stores."""

    text: str


@dataclass
class Author:
    """The code of one job while it runs."""

    stage: Stage
    name: str
    plan: Plan
    numbers: int = 0
    stored: int = 0
    handling: bool = field(default=False)

    def note(self, event: str, **fields: Any) -> None:
        """Note an event of this job."""
        self.stage.note(f"author/{self.name}", event, **fields)

    @contextmanager
    def noted(self, end: str) -> Iterator[None]:
        """Note how the block ends."""
        how = "raised"
        try:
            yield
            how = "returned"
        except trio.Cancelled:
            how = "cancelled"
            if end in {"initialize_end", "handler_end"}:
                self.note("cancelled")
            raise
        finally:
            self.note(end, how=how)

    async def send(self, context: ModuleContext, size: int = 0) -> None:
        """Send the next output."""
        number, self.numbers = self.numbers, self.numbers + 1
        self.note("send", number=number, size=size)
        try:
            await context.send({"protocol": "said", "number": number, "text": "x" * size})
        except DkTrioError:
            self.note("send_failed", number=number)
            raise
        self.note("sent", number=number)

    async def store(self, context: ModuleContext, act: Act) -> None:
        """Store the next record, cost or file."""
        kind = act.kind
        if act.mute:
            self.stage.lose_reply()
        record = f"{kind}-{self.name}-{self.stored}"
        self.stored += 1
        self.note("store", record=record)
        if kind == "cost":
            await context.cost.add(record, "word", 1)
        elif kind == "file":
            file = UploadFileData(content=record.encode(), name=record, file_type="OTHER")
            await context.filesystem.upload_files([file])
        else:
            await context.storage.store("facts", record, {"text": record})
        self.note("stored", record=record)

    async def call(self, context: ModuleContext, act: Act) -> None:
        """Call another module, found by the registry."""
        deadline = trio.current_effective_deadline()
        if act.timeout is not None:
            deadline = min(deadline, trio.current_time() + act.timeout)
        told = {} if deadline == inf else {"deadline_at": round(deadline, 9)}
        self.note("call", child=act.child, **told)
        status = "OK"
        try:
            module = await context.registry.discover_by_id(f"modules:{act.server}")
            async with context.communication.start_module(
                module.address,
                module.port,
                {"protocol": "play"},
                setup_of(act.server),
                PREFIX + act.child,
                timeout=act.timeout,
            ) as answers:
                async for _ in answers:
                    pass
        except ModuleCallError as error:
            status = error.status.name
        except DkTrioError as error:
            status = type(error).__name__
        except trio.Cancelled:
            status = "LEFT"
            raise
        finally:
            self.note("called", child=act.child, status=status)

    async def perform(self, context: ModuleContext, acts: Sequence[Act]) -> None:
        """Do one act after the other."""
        for act in acts:
            match act.kind:
                case "send":
                    await self.send(context, act.count)
                case "large":
                    await self.send(context, LARGE)
                case "burst":
                    for _ in range(act.count):
                        await self.send(context)
                case "sleep" | "linger":
                    await trio.sleep(act.seconds)
                case "call":
                    await self.call(context, act)
                case "store" | "cost" | "file":
                    await self.store(context, act)
                case "swallow":
                    self.note("sin", what="swallow")
                    with suppress(trio.Cancelled):
                        await trio.sleep(act.seconds)
                case "shield":
                    self.note("sin", what="shield")
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + act.seconds + 1):
                        await trio.sleep(act.seconds)
                case "raise":
                    raise ValueError("this author's handler raises")
                case "group":
                    raise ExceptionGroup("this author's tasks raise", [ValueError("one"), OSError("another")])
                case "spoil":
                    self.note("sin", what="spoil")
                    try:
                        await trio.sleep(act.seconds)
                    except trio.Cancelled:
                        raise ValueError("this author answers a cancellation with an error") from None


class Actor(TrioModule[PlayInput, SaidOutput, Script]):
    """A module whose jobs do what their plans say."""

    services_config_params: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "storage": {"config": {"facts": Fact}},
        "cost": {"config": {"word": {"cost_name": "word", "cost_type": "OTHER", "unit": "word", "rate": 0.5}}},
    }
    author: Author

    async def initialize(self, context: ModuleContext, setup_data: Script) -> None:
        """The author's hook."""
        stage = STAGE.get()
        job = context.session.mission_id.removeprefix(PREFIX)
        plan = stage.plan(job)
        self.author = context.state.author = Author(stage, stage.run_name(job, context.session.job_id), plan)
        self.author.note("initialize")
        with self.author.noted("initialize_end"):
            if plan.initialize:
                await trio.sleep(plan.initialize)
            if plan.fails == "initialize":
                raise OSError("this author's initialize raises")

    async def cleanup(self, context: ModuleContext) -> None:
        """The author's hook, which always runs."""
        plan = self.author.plan
        self.author.note("cleanup")
        with self.author.noted("cleanup_end"):
            if plan.parting:
                with suppress(SessionEndedError):
                    await self.author.send(context)
            if plan.cleanup:
                if plan.cleanup > SHORT:
                    self.author.note("sin", what="slow cleanup")
                await trio.sleep(plan.cleanup)
            if plan.fails == "cleanup":
                self.author.note("sin", what="raise")
                raise OSError("this author's cleanup raises")


@Actor.register
class Perform(TriggerHandler[Play, Script, Said]):
    """The only handler."""

    protocol = "play"

    async def handle(self, input_data: Play, setup_data: Script, context: ModuleContext) -> None:
        """Do what the plan says."""
        author: Author = context.state.author
        deadline = trio.current_effective_deadline()
        author.note("handler", **({} if deadline == inf else {"deadline_at": round(deadline, 9)}))
        with author.noted("handler_end"):
            await author.perform(context, author.plan.acts)


def draw_plan(dice: Random, acts: Mapping[str, float], *, longest: int = 6) -> Plan:
    """A plan.

    Args:
        dice: Decides.
        acts: Weights of kinds of acts.
        longest: Acts at most.
    """
    kinds = dice.choices(list(acts), list(acts.values()), k=dice.randint(1, longest))
    return Plan(
        acts=tuple(_draw_act(dice, kind) for kind in kinds),
        initialize=dice.choice([0, 0, 0, 0.3]),
        cleanup=dice.choice([0, 0, 0.5, 2, 8]),
        parting=dice.random() < 0.2,
        fails=dice.choices(_FAILS, [14, 1, 1])[0],
    )


def _draw_act(dice: Random, kind: Any) -> Act:
    seconds = dice.choice([0.01, 0.2, 1.0, 3.0] if kind != "linger" else [20.0]) * dice.uniform(0.5, 1.5)
    mute = kind in STORES and dice.random() < MUTE
    return Act(kind=kind, seconds=round(seconds, 3), count=dice.randint(2, 12), mute=mute)
