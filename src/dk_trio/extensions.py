"""What we add to the contract between modules and a services-provider, in metadata. Who does not know it ignores it.

A provider of ours says in the initial metadata of every reply what it honours (`HONOURS`); a client relies on an
extension only after that.
"""

from __future__ import annotations

from typing import Final

HONOURS: Final = "dk-trio-honours"
"""Of replies: words with commas between them, the constants below."""

IDEMPOTENCY_KEY: Final = "dk-trio-idempotency-key"
"""Of requests that write: a provider that has applied a request with this key gives its reply again."""

IF_UPDATED: Final = "dk-trio-if-updated"
"""Of UpdateRecord: only if the update date is still this, in microseconds since the epoch; ABORTED otherwise. Of
StoreRecord it has no meaning: that one refuses what is there. Setups have no such date in the contract."""

COST_LIMITS: Final = "dk-trio-cost-limits-bin"
"""Of AddCost: JSON list of `{"field": ..., "config_name": ..., "limit": {...}}`; FAILED_PRECONDITION when it would pass
one of them, checked in the transaction that adds."""

COST_CONFIG: Final = "dk-trio-cost-config-bin"
"""Of AddCost: the name of the price in UTF-8, by which limits say what they cover. Without it, the name of the cost."""

SERVED_AT: Final = "dk-trio-served-at-bin"
"""Of Heartbeat and DeregisterModule: `ADDRESS:PORT` in UTF-8, as its sender was registered. It speaks for that server
alone then, not for another one that serves the same module and was registered since. With `INSTANCE`, such a one is
registered at once when the registered one leaves, or is not heard of any more."""

INSTANCE: Final = "dk-trio-instance"
"""Of RegisterModule, Heartbeat and DeregisterModule: which server of a module speaks, of several at one address. The
module stays registered when one of them leaves."""

MODULE: Final = "dk-trio-module-bin"
"""Of RegisterModule: JSON object with `name`, `module_type` and `documentation`, for which it has no fields."""

SETUP_ID: Final = "dk-trio-setup-id"
"""Of CreateSetup: the id of the new setup, for which it has no field; ALREADY_EXISTS when another one has it."""

SIGNALS_AFTER: Final = "dk-trio-signals-after"
"""Of GetSignals: the number of the last signal that the caller has taken. Signals up to it are not sent again. So it is
left out when a job is asked for that was not in the poll that told the number: its signals may be older."""

SIGNALS_UPTO: Final = "dk-trio-signals-upto"
"""Of replies to GetSignals, in the initial metadata: the number for the next `SIGNALS_AFTER`."""

MODULE_ID: Final = "dk-trio-module-id"
"""Of calls of a module: which one is meant, with or without `modules:` before it. A server of one module ignores it."""

# The words of HONOURS.
IDEMPOTENCY: Final = "idempotency"
OPTIMISTIC: Final = "if-updated"
LIMITS: Final = "cost-limits"
NAMED_SETUPS: Final = "setup-id"
LONG_POLL: Final = "long-poll"
"""GetSignals is held until there is something to tell, or shortly before the deadline."""

ALL: Final = frozenset({IDEMPOTENCY, OPTIMISTIC, LIMITS, LONG_POLL, NAMED_SETUPS})
