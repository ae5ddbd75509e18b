"""Defects of the existing SDK that lose outputs, hang, cancel wrongly or leak: each has a test that bears its number.

The numbers are those of a review of that SDK. What is said here is what must hold instead.
"""

from collections.abc import Callable
from typing import Final, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])

DEFECTS: Final = {
    1: "the tail of the outputs was dropped for a slow reader, with status OK",
    2: "a forced cancel left the client without a status, for ever",
    3: "one caller's disconnect while a setup was fetched failed or hung the other callers",
    4: "ConfigSetupModule ended the jobs that ran",
    5: "a job that began while the poller stopped was never polled for",
    6: "a signal that was queued while another was sent waited for a third one",
    7: "a caller that was cancelled in a flush stranded the batch and those who waited for it",
    8: "a client that left did not stop the work",
    9: "a full queue held the slot long after its client had left",
    10: "a cancel took effect only after two round trips to the provider",
    11: "StopModule waited for the provider to echo the module's own signal",
    12: "an outage of the provider failed healthy jobs, with status OK, and nobody saw that no signal came in",
    13: "a signal was dropped because its sender's clock was behind",
    14: "cancellation was swallowed and cleanup was unbounded",
    15: "a permit or an item was lost when a wait was cancelled as it was granted",
    16: "cleanup was skipped after a failure",
    17: "cleanup ran twice on StopModule, and for configurations that were never initialised",
    18: "services were closed before cleanup could use them",
    19: "a failure looked like success",
    20: "a failed configuration took the whole timeout and hid its cause",
    21: "references to channels leaked",
    22: "a job that was refused left its instance and a temporary directory behind",
    23: "a slot leaked when a job could not be made, and a duplicate id ended another job",
    24: "a slow cleanup took capacity without a bound",
    25: "a server that stopped went on accepting, said that it served, and aborted its jobs",
    26: "a server was registered once, and never again; readiness did not know of it",
    27: "listening for signals failed when the session had ended first",
    28: "nothing bounded a job, and deadlines did not travel",
}
"""What the existing SDK does, by the number of the defect."""


def defect(number: int) -> Callable[[Test], Test]:
    """The decorated test holds what this defect breaks."""
    assert number in DEFECTS

    def unchanged(test: Test) -> Test:
        return test

    return unchanged
