"""The tree of tasks: each below its nursery, where it waits and for how long, and few lines for many tasks."""

from collections.abc import Iterator

import pytest
import trio
import trio.testing
from tests.module.sample import module_with
from tests.module.served import served

from dk_trio.log_context import bound
from dk_trio.observe import task_tree
from dk_trio.observe.task_tree import Survey, Surveyor, TaskNode, lines

JOB = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def nodes(node: TaskNode) -> Iterator[TaskNode]:
    yield node
    for nursery in node.nurseries:
        for child in nursery:
            yield from nodes(child)


def told(node: TaskNode) -> int:
    """How many tasks a node accounts for."""
    below = sum(told(child) for nursery in node.nurseries for child in nursery)
    return node.count * (1 + below + node.more)


def named(survey: Survey, name: str) -> TaskNode:
    (node,) = [node for node in nodes(survey.root) if node.name == name]
    return node


async def waits_for(event: trio.Event) -> None:
    await event.wait()


async def has_children(event: trio.Event, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(waits_for, event, name=f"child {number}")


async def test_a_task_is_told_with_where_it_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_for, trio.Event(), name="one")
        await trio.sleep(1)
        survey = await Surveyor().survey()
        nursery.cancel_scope.cancel()
    node = named(survey, "one")
    assert node.waits == "Event.wait"
    assert node.author == node.at
    assert node.author.startswith("tests/observe/test_task_tree.py:")
    assert node.author.endswith(" in waits_for")
    assert node.seconds is None, "nobody has looked before"
    assert survey.precision is None


async def test_a_task_has_waited_since_it_was_seen_at_the_same_step(autojump_clock: trio.testing.MockClock) -> None:
    async def runs_now_and_then() -> None:
        for _ in range(1000):
            await trio.sleep(7)

    surveyor = Surveyor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_for, trio.Event(), name="still")
        nursery.start_soon(runs_now_and_then, name="now and then")
        await trio.sleep(0.5)
        for expected, other in ((None, None), (5, 5), (10, 0), (15, 0)):
            survey = await surveyor.survey()
            assert named(survey, "still").seconds == expected
            assert named(survey, "now and then").seconds == other
            await trio.sleep(5)
        assert survey.precision == 5
        surveyor.forget()
        assert named(await surveyor.survey(), "still").seconds is None
        nursery.cancel_scope.cancel()


async def test_tasks_that_are_alike_are_told_as_one(autojump_clock: trio.testing.MockClock) -> None:
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(has_children, event, 2, name=f"connection {number}")
        nursery.start_soon(has_children, event, 3, name="connection 50")
        await trio.sleep(1)
        survey = await Surveyor().survey()
        nursery.cancel_scope.cancel()
    group = named(survey, "connection *")
    assert group.count == 50
    assert [child.name for child in group.nurseries[0]] == ["child *", "child *"]
    assert len(named(survey, "connection 50").nurseries[0]) == 3, "another shape is another group"
    assert told(survey.root) == survey.total


async def test_a_tree_has_an_end(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nested(depth: int) -> None:
        async with trio.open_nursery() as nursery:
            if depth:
                nursery.start_soon(nested, depth - 1)
            else:
                await trio.sleep_forever()

    monkeypatch.setattr(task_tree, "NODES_MAX", 300)
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(400):
            nursery.start_soon(waits_for, event, name=f"unlike {chr(0x4E00 + number)}")
        nursery.start_soon(nested, 120)
        await trio.sleep(1)
        survey = await Surveyor().survey()
        nursery.cancel_scope.cancel()
    assert sum(1 for _ in nodes(survey.root)) == 300
    assert told(survey.root) == survey.total > 500
    assert any(line.endswith(" more") for line in lines(survey))


async def test_deep_nurseries_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    async def nested(depth: int) -> None:
        async with trio.open_nursery() as nursery:
            if depth:
                nursery.start_soon(nested, depth - 1)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(nested, 130)
        await trio.sleep(1)
        survey = await Surveyor().survey()
        nursery.cancel_scope.cancel()
    assert len(list(lines(survey))) < 2 * task_tree.DEPTH_MAX + 20
    assert told(survey.root) == survey.total


async def test_the_text_has_one_task_a_line(autojump_clock: trio.testing.MockClock) -> None:
    surveyor = Surveyor()
    async with trio.open_nursery() as nursery:
        with bound(job=JOB):
            nursery.start_soon(has_children, trio.Event(), 5, name="parent")
        await trio.sleep(1)
        await surveyor.survey()
        await trio.sleep(60)
        text = list(lines(await surveyor.survey()))
        nursery.cancel_scope.cancel()
    assert text[0].endswith(" tasks")
    (parent,) = [line for line in text if "parent" in line]
    assert f"parent [job {JOB}] - the end of its nursery at " in parent
    assert parent.endswith("(for at least 60 s)")
    child = text[text.index(parent) + 1]
    assert child.strip().startswith("5 x child * - Event.wait at ")
    assert child.index("5 x") == parent.index("parent") + 2


async def test_tasks_of_a_job_name_it_and_the_authors_line(autojump_clock: trio.testing.MockClock) -> None:
    async def handle(self: object, input_data: object, setup_data: object, context: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits_for, trio.Event(), name="helper")

    async with served(module_with(handle)) as (server, client), trio.open_nursery() as nursery:

        async def call() -> None:
            async with client.start({"protocol": "message"}) as outputs:
                async for _ in outputs:
                    pass

        nursery.start_soon(call)
        await trio.sleep(1)
        (session,) = server.jobs
        survey = await Surveyor().survey()
        assert named(survey, "helper").job == session.ids.job_id
        author = named(survey, f"job {session.ids.job_id}")
        assert author.author.endswith(" in test_tasks_of_a_job_name_it_and_the_authors_line.<locals>.handle")
        (supervisor,) = [node for node in nodes(survey.root) if node.name.endswith("/StartModule")]
        assert supervisor.job == session.ids.job_id
        assert supervisor.at.startswith("dk_trio/session.py:")
        nursery.cancel_scope.cancel()


async def test_others_run_between_the_slices_of_a_survey(autojump_clock: trio.testing.MockClock) -> None:
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            steps += 1
            await trio.lowlevel.checkpoint()

    event = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(3 * task_tree.SLICE):
            nursery.start_soon(waits_for, event, name=f"{number}")
        await trio.sleep(1)
        nursery.start_soon(count)
        await Surveyor().survey()
        assert steps >= 6
        nursery.cancel_scope.cancel()
