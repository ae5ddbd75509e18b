"""Names of files: none that is accepted leaves a directory that somebody may put it below, on any system."""

from __future__ import annotations

import ntpath
import posixpath
import re
from pathlib import Path

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.sizes import size

from dk_trio.errors import InvalidFileError
from dk_trio.services.filesystem import FileFilter, check_name

from .file_kit import content_of, filesystem, on_disk, put

# The contract's rule of UploadFileData.name and FileFilter.prefix.
CONTRACT = re.compile(r"[^.]*([.][^.]+)*[.]?")

segments = st.sampled_from(
    ["..", ".", "", "a", "b.txt", "C:", "~", "\x00", "\\", "..\\..", "%2e%2e", "é", "con", "...", "-"]
)
names = st.one_of(
    st.lists(segments, max_size=6).map("/".join),
    st.text(st.sampled_from("./\\a:\x00\n é\ud800\x9f"), max_size=12),
    st.text(max_size=20),
)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "not empty"),
        ("/etc/passwd", "absolute"),
        ("C:/windows", "absolute"),
        ("::", "absolute"),
        ("../a", "two dots"),
        ("a/../../b", "two dots"),
        ("a..b", "two dots"),
        ("a\\b", "backslash"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a//b", "empty segment"),
        ("a/", "empty segment"),
        ("./a", "segment `.`"),
        ("a" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("/".join(["a" * 200] * 6), "1024 bytes"),
        ("\ud800", "Unicode"),
    ],
)
def test_a_name_that_could_escape_is_refused_with_its_rule(name: str, rule: str) -> None:
    with pytest.raises(InvalidFileError, match=rule) as refused:
        check_name(name, "files[3].name")
    (violation,) = refused.value.violations
    assert violation.field == "files[3].name"
    assert len(refused.value.text) < 300
    assert refused.value.text.isprintable()


@pytest.mark.parametrize("name", ["a", "a.txt", ".hidden", "a/b/c.tar.gz", "a.", "ü b", "ab:c", "~", "-rf", "a" * 255])
def test_ordinary_names_are_allowed(name: str) -> None:
    assert check_name(name, "name") == name


@settings(deadline=None, max_examples=size(500, 10000))
@given(names)
@example("a/..")
@example("..")
@example("C:..\\a")
def test_no_name_leaves_its_directory(name: str) -> None:
    try:
        check_name(name, "name")
    except InvalidFileError as error:
        assert error.violations[0].field == "name"
        error.text.encode()
        return
    assert CONTRACT.fullmatch(name)
    assert posixpath.normpath(posixpath.join("/root", name)) == "/root/" + name
    assert ntpath.normpath(ntpath.join("R:\\root", name)).startswith("R:\\root\\")
    name.encode()


@settings(deadline=None, max_examples=size(50, 1000))
@given(st.lists(names, max_size=5))
def test_a_file_of_any_name_is_refused_or_found_under_it(tried: list[str]) -> None:
    async def main() -> None:
        async with filesystem() as files:
            stored = set()
            for name in tried:
                try:
                    record = await put(files, name, repr(name).encode(), replace_if_exists=True)
                except InvalidFileError:
                    continue
                stored.add(name)
                assert await content_of(files, record.id) == repr(name).encode()
                assert (await files.get_files(FileFilter(names=[name])))[0] == [record]
            assert {record.name for record in (await files.get_files(FileFilter()))[0]} == stored

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_neither_names_nor_ids_become_paths(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    outside = tmp_path / "secret"
    outside.write_text("secret")
    async with filesystem(directory) as files:
        record = await put(files, "a/b/c")
        for file_id in (
            "../../secret",
            "files:../../secret",
            str(outside),
            f"files:../{next(iter(on_disk(directory)))}",
        ):
            with pytest.raises(Exception, match="No file"):
                await files.get_file(file_id, include_content=True)
        for name in ("../secret", "../../secret", str(outside), "a/../../../secret"):
            with pytest.raises(InvalidFileError):
                await put(files, name, replace_if_exists=True)
            with pytest.raises(InvalidFileError):
                await files.update_file(record.id, new_name=name)
        assert len(on_disk(directory)) == 1
        assert {path.name for path in tmp_path.iterdir()} == {"data", "secret"}
    assert outside.read_text() == "secret"
