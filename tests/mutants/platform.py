"""Bugs between server and platform: signals in both directions, the provider's store, the registry."""

from typing import Final

from .mutant import Mutant

PLATFORM: Final = (
    Mutant(
        name="stop-before-start",
        promise="P7",
        file="signals/_kept.py",
        old="            entry, _ = self._order.popitem(last=False)\n",
        new="            entry, _ = self._order.popitem(last=True)\n",
        breaks="signals of a job arrive in the wrong order",
        batteries=("tests/signals/test_kept.py",),
    ),
    Mutant(
        name="signal-lost-on-failure",
        promise="P7",
        file="signals/outbox.py",
        old="            self._failures += 1\n            closing",
        new="            self._failures += 1\n            self._batch = None\n            closing",
        breaks="a batch that could not be sent is forgotten",
        batteries=("tests/signals/test_outages.py",),
    ),
    Mutant(
        name="no-flush-on-close",
        promise="P7",
        file="signals/outbox.py",
        old="                return len(kept) > 0\n",
        new="                return False\n",
        breaks="what waits to be sent when a server stops is lost",
        batteries=("tests/signals/test_outbox.py",),
    ),
    Mutant(
        name="signal-waits-for-company",
        promise="P7",
        file="signals/outbox.py",
        old="        if first or len(kept) >= self._size:\n",
        new="        if len(kept) >= self._size:\n",
        breaks="a signal is sent when there are enough of them, not in time",
        batteries=("tests/signals/test_outbox.py",),
    ),
    Mutant(
        name="who-gives-up-takes-the-batch-along",
        promise="P7",
        file="signals/outbox.py",
        old="            delivery.abandoned = True\n",
        new="            delivery.abandoned = True\n"
        "            if not delivery.settled.is_set():\n"
        "                self._kept.take(len(self._kept))\n",
        breaks="a caller that is cancelled takes the signals of others along",
        batteries=("tests/signals/test_outbox.py",),
    ),
    Mutant(
        name="cancel-dropped-when-full",
        promise="P5",
        file="signals/_subscription.py",
        old="            if signal.action in URGENT:\n",
        new="            if False:\n",
        breaks="a cancel is lost when too many other signals wait",
        batteries=("tests/signals/test_inbox.py",),
    ),
    Mutant(
        name="fresh-job-not-asked-for",
        promise="P5",
        file="signals/inbox.py",
        old="            self._joined.set()\n            self._renew()\n",
        new="            self._joined.set()\n",
        breaks="a job that has just begun is cancelled a second late",
        batteries=("tests/signals/test_fresh_jobs.py",),
    ),
    Mutant(
        name="new-job-never-asked-for",
        promise="P5",
        file="signals/inbox.py",
        old="            self._request = self._cursor = None\n            self._joins += 1\n",
        new="            self._cursor = None\n            self._joins += 1\n",
        breaks="a job that begins beside others is never asked for, so nothing cancels it",
        batteries=("tests/signals/test_fresh_jobs.py",),
    ),
    Mutant(
        name="poller-sleeps-on",
        promise="P5",
        file="signals/inbox.py",
        old="            self._joined.set()\n",
        new="",
        breaks="a job that begins when no other runs is never asked for",
        batteries=("tests/signals/test_inbox.py",),
    ),
    Mutant(
        name="known-by-its-date",
        promise="P5",
        file="signals/inbox.py",
        old="        mark = identity(task)\n",
        new="        mark = str(task.created_at).encode()\n",
        breaks="a cancel with the date of an earlier signal is taken for the same",
        batteries=("tests/signals/test_inbox.py",),
    ),
    Mutant(
        name="too-much-is-kept",
        promise="P8",
        file="signals/outbox.py",
        old="        while kept.tasks > self._max_tasks:\n",
        new="        while False:\n",
        breaks="signals of an outage fill the memory",
        batteries=("tests/signals/test_outages.py",),
    ),
    Mutant(
        name="acknowledged-before-commit",
        promise="P7",
        file="services/stores/_sqlite.py",
        old='            if buggify.fails("database.commit"):\n'
        "                raise _failed_disk()\n"
        '            writer.execute("COMMIT")\n',
        new="            try:\n"
        '                if buggify.fails("database.commit"):\n'
        "                    raise _failed_disk()\n"
        '                writer.execute("COMMIT")\n'
        "            except sqlite3.Error:\n"
        "                pass\n",
        breaks="a write is acknowledged, and the transaction that it is in was not committed",
        batteries=("tests/services/test_database_failures.py", "tests/services/test_database.py"),
    ),
    Mutant(
        name="lease-never-expires",
        promise="P3",
        file="services/stores/registrations.py",
        old="        return self.served and lease.after < self.seen < lease.before\n",
        new="        return self.served\n",
        breaks="a server that has died is found for ever",
        batteries=("tests/provider/test_registry.py", "tests/module/test_remote_mode.py"),
    ),
    Mutant(
        name="no-heartbeats",
        promise="P3",
        file="registration.py",
        old="                pause = FIRST_PAUSE\n                await self._pause(self._interval)\n",
        new="                pause = FIRST_PAUSE\n                await trio.sleep_forever()\n",
        breaks="a server that lives is not found any more",
        batteries=("tests/module/test_registration.py",),
    ),
)
