"""`dk-trio new`: projects whose own tests pass, and names that cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dk_trio.cli._exits import Exit
from dk_trio.cli.new import TEMPLATES, write_project

from .processes import PATIENCE, ROOT, environment, here, outputs_of

# One interpreter for all of them: most of the time of a test run is the imports.
RUN = """
import os, sys, pytest
sys.path.insert(0, "")
for project in sys.argv[1:]:
    os.chdir(project)
    before = set(sys.modules)
    if code := pytest.main(["-q", "-p", "no:cacheprovider"]):
        sys.exit(f"{project}: {code!r}")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"tests", os.path.basename(project)}:
            del sys.modules[name]
"""


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each template, by template."""
    folder = tmp_path_factory.mktemp("projects")
    made = {}
    for template, name in zip(TEMPLATES, ("a", "some_agent", "small-talk-of-a-very-long-name-indeed-1"), strict=True):
        path = made[template] = folder / name.replace("-", "_")
        done = here("new", name, "--template", template, "--directory", str(path))
        assert done.returncode == Exit.OK, done.stderr
        assert f"dk-trio serve {path.name}.py" in done.stdout.decode()
    return made


def test_the_tests_of_every_template_pass(projects: dict[str, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, projects.values())],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 2,
        env=environment(PYTHONPATH=os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT / "src")]))),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == len(TEMPLATES)


def test_every_template_is_clean_whatever_its_name(tmp_path: Path) -> None:
    """Names of different lengths, since lines have one, and across the alphabet, since imports are sorted."""
    for template in TEMPLATES:
        for name in ("a", "weather", "small-talk-of-a-very-long-name-indeed-1"):
            write_project(name, template, tmp_path / template / name.replace("-", "_"))
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_of_the_template_is_left(projects: dict[str, Path]) -> None:
    for path in projects.values():
        files = [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        assert {"README.md", "pyproject.toml", ".gitignore", "Dockerfile"} <= {file.name for file in files}
        for file in files:
            assert "new_module" not in file.name
            assert not {"new_module", "NewModule", "new-module"} & set(file.read_text().replace(".", " ").split())


def test_every_readme_calls_what_there_is(projects: dict[str, Path]) -> None:
    for path in projects.values():
        module = (path / f"{path.name}.py").read_text()
        for line in (path / "README.md").read_text().splitlines():
            if line.startswith("dk-trio call"):
                protocol = line.partition("--protocol ")[2].partition(" ")[0]
                assert f'protocol = "{protocol}"' in module


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Weather", "'Weather' cannot name a module: write at most 40 lower-case letters"),
        ("1st", "a letter first"),
        ("a--b", "with - or _ between words"),
        ("../up", "cannot name a module"),
        ("", "cannot name a module"),
        ("a" * 41, "at most 40"),
        ("é", "cannot name a module"),
        ("import", "'import' is a word of Python itself"),
        ("match", "'match' is a word of Python itself"),
        ("json", "'json' would hide the Python module 'json'"),
        ("trio", "'trio' would hide the Python module 'trio'"),
        ("dk-trio", "'dk-trio' would hide the Python module 'dk_trio'"),
    ],
)
def test_names_that_cannot_be(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = here("new", name)
    assert done.returncode == Exit.USAGE
    assert told in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weather").mkdir()
    done = here("new", "weather")
    assert done.returncode == Exit.USAGE
    assert b"weather exists, and nothing is overwritten; name another with --directory." in done.stderr
    assert list((tmp_path / "weather").iterdir()) == []
    assert here("new", "weather", "--directory", "weather/below").returncode == Exit.OK


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = here("new", "weather", "--directory", str(tmp_path / "file" / "below"))
    assert done.returncode == Exit.USAGE
    assert b"cannot be written: Not a directory." in done.stderr


def test_what_was_made_as_json(tmp_path: Path) -> None:
    (made,) = outputs_of(here("new", "weather", "--directory", str(tmp_path / "w"), "--json").stdout)
    assert made["module"] == "weather.py"
    assert sorted(made["files"]) == sorted(
        str(file.relative_to(tmp_path / "w")) for file in (tmp_path / "w").rglob("*") if file.is_file()
    )
