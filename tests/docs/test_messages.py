"""The sample of the page on messages prints what the page says."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_messages_sample_prints_what_the_page_says() -> None:
    said = re.search(r"^```text\n(.*?)^```", (DOCS / "messages.md").read_text(), re.MULTILINE | re.DOTALL)
    assert said is not None
    done = subprocess.run(
        [sys.executable, DOCS / "samples/messages.py"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == said[1]
