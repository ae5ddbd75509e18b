from dk_trio.testing import simulate


def test_a_mesh_survives():
    result = simulate(41, "mesh")
    assert not result.violations, result.command
