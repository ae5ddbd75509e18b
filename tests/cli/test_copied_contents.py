"""Contents that come and go while they are copied, and copies that cannot be made."""

import hashlib
import itertools
from pathlib import Path

import pytest

from dk_trio.cli.provider._copy import CONTENTS, _copy, _staged
from dk_trio.errors import DatabaseError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    return tmp_path / "source"


def put(source: Path, name: str) -> tuple[str, int]:
    (source / name).write_bytes(name.encode())
    return hashlib.sha256(name.encode()).hexdigest(), len(name)


def test_what_is_removed_meanwhile_is_not_in_the_copy(source: Path, tmp_path: Path) -> None:
    kept, gone, late = (put(source, name) for name in ("kept", "gone", "late"))
    rounds = []

    def snapshot(_: Path) -> dict[str, tuple[str, int]]:
        rounds.append(1)
        if len(rounds) == 1:  # of a moment when both were there; one is removed before its turn
            (source / "late").unlink()
            return {"kept": kept, "gone": gone, "late": late}
        return {"kept": kept}

    copied = _copy(snapshot, source, tmp_path / "target")
    assert len(rounds) == 2
    assert (copied.contents, copied.size) == (1, 4)
    assert [path.name for path in (tmp_path / "target" / CONTENTS).iterdir()] == ["kept"]


def test_it_is_given_up_in_the_end(source: Path, tmp_path: Path) -> None:
    names = itertools.count()
    with pytest.raises(DatabaseError, match="removed faster than they can be copied"):
        _copy(lambda _: {f"gone{next(names)}": ("", 0)}, source, tmp_path / "target")


def test_what_is_not_there_although_it_was_not_removed_is_told_at_once(source: Path, tmp_path: Path) -> None:
    rounds = itertools.count()
    with pytest.raises(DatabaseError, match=f"{source / 'lost'} is not there, and the database names it"):
        _copy(lambda _: {f"gone{next(rounds)}": ("", 0), "lost": ("", 0)}, source, tmp_path / "target")
    assert next(rounds) < 4


def test_contents_without_their_directory_are_no_copy(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="contents of files are needed"):
        _copy(lambda _: {"a": ("", 0)}, None, tmp_path)
    assert _copy(lambda _: {}, None, tmp_path).contents == 0


def test_two_copies_to_one_place(tmp_path: Path) -> None:
    again = pytest.raises(DatabaseError, match="another backup to it runs")
    with _staged(tmp_path / "copy"), again, _staged(tmp_path / "copy"):
        pytest.fail("it is taken")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_disk_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be made: No space left"), _staged(tmp_path / "copy"):
        raise OSError(28, "No space left on device")
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError, match="cannot be made"), _staged(tmp_path / "file" / "copy"):
        pytest.fail("there is no directory")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
