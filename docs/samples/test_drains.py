from dk_trio.testing import simulate
from dk_trio.testing.simulation import Scenario

drains = Scenario(name="drains", about="servers come and go", servers=(2, 3), faults={"drain": 1}, fault_count=(3, 9))


def test_servers_that_come_and_go():
    result = simulate(7, drains)
    assert not result.violations, result.command
