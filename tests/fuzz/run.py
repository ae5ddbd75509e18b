"""Fuzz one target, guided by coverage: `python -m tests.fuzz.run TARGET [CORPUS] [-max_total_time=600 ...]`.

Everything behind the target is for libFuzzer: a folder keeps what was found, and options bound the run. What makes a
target fail is written to a file `crash-...`, and fed again by naming that file.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dk_trio.wire", "dk_trio.pb", "tests.fuzz.wire"]):
    from tests.fuzz.targets import TARGETS, message_classes, seeds

    from dk_trio.pb._codec import codec_of

LONGEST = 4096


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # of fields that are deprecated, and are set all the same
    name, *options = sys.argv[1:]
    if name == "codec":
        for _, ours in message_classes():
            if (decode := codec_of(ours).decode).__code__.co_filename.startswith("<codec"):  # made without an import
                atheris.instrument_func(decode)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds(name)):
            Path(folder, f"seed-{number}").write_bytes(seed)
        folders = [one for one in options if not one.startswith("-")]
        bounds = [one for one in options if one.startswith("-")]
        # The first folder takes what is found; a file in place of it is fed once.
        corpus = folders if any(Path(one).is_file() for one in folders) else [*folders, folder]
        atheris.Setup([sys.argv[0], f"-max_len={LONGEST}", *bounds, *corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
