"""The samples import each other by name, as they do when a reader runs them from their folder."""

import sys
from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"

sys.path.insert(0, str(SAMPLES))
