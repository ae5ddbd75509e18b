"""Notes for `docs/reliability.md` what `make coverage` has measured: `python -m tests.coverage_figures`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.sizes import record


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", path], check=True)
        totals = json.loads(path.read_text())["totals"]
    record(
        "coverage",
        branches=totals["num_branches"],
        branches_taken=totals["covered_branches"],
        branch_percent=100 * totals["covered_branches"] / totals["num_branches"],
        lines=totals["num_statements"],
        lines_run=totals["covered_lines"],
        line_percent=100 * totals["covered_lines"] / totals["num_statements"],
    )


if __name__ == "__main__":
    main()
