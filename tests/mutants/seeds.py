"""The simulation as a battery: the first seeds, up to the first that shows a violation."""

import logging
import sys

from dk_trio.testing.simulation.run import simulate


def main(seeds: int) -> int:
    """The exit status: 1 when a seed shows a violation."""
    logging.getLogger("dk_trio").addHandler(logging.NullHandler())
    for seed in range(seeds):
        result = simulate(seed)
        if result.violations:
            first = result.violations[0]
            print(f"FAILED seed {seed} ({result.scenario}): {first.rule}: {first.text.splitlines()[-1]}")
            return 1
    print(f"{seeds} seeds without a violation")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
