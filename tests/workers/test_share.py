"""Who gets the next connection, as numbers."""

from dataclasses import dataclass, field
from random import Random

from dk_trio.workers._share import SILENT_AFTER, UNTAKEN, Share, least_loaded


@dataclass
class One:
    name: str
    share: Share[str] = field(default_factory=Share)

    def heard(self, now: float = 0.0, *, taken: int = 0, lost: int = 0, connections: int = 0, rpcs: int = 0) -> object:
        return self.share.heard(now, taken=taken, lost=lost, connections=connections, rpcs=rpcs)


def ones(*names: str) -> list[One]:
    found = [One(name) for name in names]
    for one in found:
        one.share.serving = True
        one.heard()
    return found


def test_connections_that_come_at_once_are_spread_before_anybody_reports() -> None:
    a, b, c = group = ones("a", "b", "c")
    for order in range(1, 10):
        chosen = least_loaded(group, 0.0)
        assert chosen is not None
        chosen.share.handed(f"connection {order}", order)
    assert [one.share.load[0] for one in (a, b, c)] == [3, 3, 3]


def test_open_connections_decide_then_rpcs_then_who_waits_longest() -> None:
    a, b, c = group = ones("a", "b", "c")
    a.heard(connections=2)
    b.heard(connections=1, rpcs=9)
    c.heard(connections=1, rpcs=8)
    assert least_loaded(group, 0.0) is c
    b.heard(connections=1, rpcs=8)
    c.share.order, b.share.order = 5, 4
    assert least_loaded(group, 0.0) is b


def test_a_worker_that_is_silent_blocked_draining_or_full_gets_nothing() -> None:
    a, b = group = ones("a", "b")
    b.heard(connections=50)
    a.share.serving = False
    assert least_loaded(group, 0.0) is b
    a.share.serving, a.share.blocked = True, True
    assert least_loaded(group, 0.0) is b
    a.heard()  # which says that it is well
    assert least_loaded(group, 0.0) is a
    b.heard(now=SILENT_AFTER)
    assert least_loaded(group, SILENT_AFTER) is a
    assert least_loaded(group, SILENT_AFTER + 0.1) is b
    a.heard(now=SILENT_AFTER)
    for number in range(UNTAKEN):
        a.share.handed(str(number), number)
    b.heard(now=SILENT_AFTER, connections=1000)
    assert least_loaded(group, SILENT_AFTER) is b
    a.share.serving = b.share.serving = False
    assert least_loaded(group, SILENT_AFTER) is None


def test_what_was_taken_and_what_was_lost_comes_back_in_order() -> None:
    (one,) = ones("a")
    for number, name in enumerate("abcde"):
        one.share.handed(name, number)
    assert one.heard(taken=2, connections=2) == (["a", "b"], [])
    assert one.heard(taken=2, connections=1) == ([], [])
    assert one.heard(taken=2, lost=1, connections=1) == ([], ["c"])
    assert one.share.blocked
    assert one.heard(taken=3, lost=1, connections=2) == (["d"], [])
    assert not one.share.blocked
    assert one.share.load[0] == 3
    assert one.share.left() == ["e"]
    assert one.share.left() == []


def test_a_worker_that_reports_nonsense_gives_back_no_more_than_it_has() -> None:
    (one,) = ones("a")
    one.share.handed("a", 1)
    assert one.heard(taken=100) == (["a"], [])
    assert one.heard(taken=3, lost=-4) == ([], [])


def test_connections_stay_even_while_they_come_and_go() -> None:
    random = Random(3)
    group = ones("a", "b", "c", "d")
    have = {one.name: 0 for one in group}
    for order in range(1, 2000):
        if random.random() < 0.45:
            busy = [one for one in group if have[one.name]]
            if busy:
                have[random.choice(busy).name] -= 1
        else:
            chosen = least_loaded(group, 0.0)
            assert chosen is not None
            assert have[chosen.name] == min(have.values())
            chosen.share.handed("", order)
            have[chosen.name] += 1
        for one in group:
            one.heard(taken=one.share._taken + len(one.share._untaken), connections=have[one.name])
