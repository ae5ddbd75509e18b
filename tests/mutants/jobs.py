"""Bugs in the life of a job: its session, its slot, its setup, its end."""

from typing import Final

from .mutant import Mutant

JOBS: Final = (
    Mutant(
        name="last-output-dropped",
        promise="P1",
        file="session.py",
        old="        await self._output(output_dict(output))\n",
        new="        held, self._held = getattr(self, '_held', None), output_dict(output)\n"
        "        if held is not None:\n"
        "            await self._output(held)\n",
        breaks="the last output of a job is kept back for a next one that never comes",
        batteries=("tests/module/test_served.py",),
    ),
    Mutant(
        name="failure-looks-well",
        promise="P1",
        file="servicer.py",
        old="    raise status from error\n\n\ndef _finish",
        new="\n\ndef _finish",
        breaks="a job that failed ends with status OK",
        batteries=("tests/module/test_errors.py",),
    ),
    Mutant(
        name="last-reason-wins",
        promise="P2",
        file="session.py",
        old="        if self._reason is not None:\n            return False\n        self._reason = reason\n",
        new="        self._reason = reason\n",
        breaks="a job that was cancelled ends for whatever went wrong afterwards",
        batteries=("tests/module/test_session.py", "tests/module/test_errors.py"),
    ),
    Mutant(
        name="stop-without-reason",
        promise="P2",
        file="job_signals.py",
        old="        self._tell(SignalAction.STOP, OUTCOMES[reason].signal, payload)\n",
        new="        self._tell(SignalAction.STOP, 'none', payload)\n",
        breaks="the platform is told that a job has ended, and not why",
        batteries=("tests/module/test_remote_signals.py",),
    ),
    Mutant(
        name="stop-signal-forgotten",
        promise="P2",
        file="session.py",
        old="        if admitted:\n            self._signals.stop(",
        new="        if admitted and self._reason is not Reason.CLIENT_GONE:\n            self._signals.stop(",
        breaks="a job whose client has left runs for ever, as far as the platform knows",
        batteries=("tests/module/test_jobs.py",),
    ),
    Mutant(
        name="refused-job-leaks",
        promise="P3",
        file="jobs.py",
        old="            CURRENT.reset(token)\n            del self._sessions[job_id]\n",
        new="            CURRENT.reset(token)\n"
        "            if session.outcome is None or session.outcome.reason is not Reason.REFUSED:\n"
        "                del self._sessions[job_id]\n",
        breaks="each job that is refused stays in the table of the server for ever",
        batteries=("tests/module/test_jobs.py",),
    ),
    Mutant(
        name="services-closed-before-cleanup",
        promise="P3",
        file="session.py",
        old="            try:\n"
        "                if self._definition.cls.cleanup is not TrioModule.cleanup:\n"
        "                    await self._cleanup(module)\n"
        "            finally:\n"
        "                if self._context.uses_services:\n"
        "                    await self._close_services()\n",
        new="            try:\n"
        "                if self._context.uses_services:\n"
        "                    await self._close_services()\n"
        "            finally:\n"
        "                if self._definition.cls.cleanup is not TrioModule.cleanup:\n"
        "                    await self._cleanup(module)\n",
        breaks="cleanup finds its services closed",
        batteries=("tests/module/test_services_of_a_job.py",),
    ),
    Mutant(
        name="leaked-slot",
        promise="P4",
        file="admission.py",
        old="        assert self._task is not None\n        self._admission._release(self._task)\n",
        new="        assert self._task is not None\n"
        "        await trio.lowlevel.checkpoint_if_cancelled()\n"
        "        self._admission._release(self._task)\n",
        breaks="a job that is cancelled keeps its slot, since leaving is a checkpoint",
        batteries=("tests/admission",),
    ),
    Mutant(
        name="leaked-gate",
        promise="P4",
        file="admission.py",
        old="            except BaseException:\n                if gate is not None:\n",
        new="            except Exception:\n                if gate is not None:\n",
        breaks="a job that is cancelled while it waits in the queue keeps its place",
        batteries=("tests/admission",),
    ),
    Mutant(
        name="newcomers-pass-the-door",
        promise="P4",
        file="admission.py",
        old="        if not self._door.locked():\n",
        new="        if True:\n",
        breaks="who comes at the right moment overtakes those who wait at the gate",
        batteries=("tests/admission",),
    ),
    Mutant(
        name="slot-by-polling",
        promise="P4",
        file="admission.py",
        old="                await self._slot.acquire_on_behalf_of(task)\n                return\n",
        new="                while self._slot.available_tokens < 1:\n"
        "                    await trio.sleep(0.01)\n"
        "                self._slot.acquire_on_behalf_of_nowait(task)\n"
        "                return\n",
        breaks="slots go to whoever looks at the right moment, not to who came first",
        batteries=("tests/admission",),
    ),
    Mutant(
        name="slot-waits-for-the-reader",
        promise="P4",
        file="session.py",
        old="                await self._execute(nursery)\n            # A nursery",
        new="                await self._execute(nursery)\n"
        "                if self._reason is None and not nursery.cancel_scope.cancel_called:\n"
        "                    await self._output(end_of_stream())\n"
        "                    self._end(Reason.COMPLETED)\n"
        "            # A nursery",
        breaks="a client that reads slowly keeps the slot of a job that is over",
        batteries=("tests/module/test_timeouts.py", "tests/module/test_delivery.py"),
    ),
    Mutant(
        name="configuration-passes-admission-by",
        promise="P4",
        file="servicer.py",
        old="            async with self._admission.admit():\n",
        new="            if True:\n",
        breaks="configurations run beside all the jobs that a server may run",
        batteries=("tests/module/test_service_config_setup.py",),
    ),
    Mutant(
        name="shielded-handler",
        promise="P5",
        file="session.py",
        old="                await self._run_module(module)\n",
        new="                with trio.CancelScope(shield=True):\n                    await self._run_module(module)\n",
        breaks="a handler does not hear that its job was cancelled",
        batteries=("tests/module/test_session.py",),
    ),
    Mutant(
        name="swallowed-cancelled",
        promise="P5",
        file="session.py",
        old='        except trio.TooSlowError as error:\n            text = f"Job {self.ids.job_id} was cancelled',
        new="        except trio.Cancelled:\n"
        "            return\n"
        "        except trio.TooSlowError as error:\n"
        '            text = f"Job {self.ids.job_id} was cancelled',
        breaks="a handler that is cancelled inside of `send` goes on",
        batteries=("tests/module/test_session.py",),
    ),
    Mutant(
        name="cleanup-skipped",
        promise="P5",
        file="session.py",
        old="                if self._definition.cls.cleanup is not TrioModule.cleanup:\n",
        new="                if self._definition.cls.cleanup is not TrioModule.cleanup"
        " and self._reason is not Reason.FAILED:\n",
        breaks="a job that has failed is not cleaned up after",
        batteries=("tests/module/test_session.py",),
    ),
    Mutant(
        name="cleanup-twice",
        promise="P5",
        file="session.py",
        old="                    await self._cleanup(module)\n",
        new="                    await self._cleanup(module)\n"
        "                    if self._cancelled():\n"
        "                        await self._cleanup(module)\n",
        breaks="a job that was cancelled is cleaned up after twice",
        batteries=("tests/module/test_session.py",),
    ),
    Mutant(
        name="unbounded-cleanup",
        promise="P5",
        file="session.py",
        old="        deadline = started + self._options.cleanup_grace if self._cancelled() else self._scope.deadline\n",
        new="        deadline = inf\n",
        breaks="a cleanup that hangs keeps its slot for ever, under a shield",
        batteries=("tests/module/test_timeouts.py",),
    ),
    Mutant(
        name="caller-never-told",
        promise="P5",
        file="session.py",
        old="        self._abandon(self._error)\n",
        new="",
        breaks="the caller of a job whose code minds no cancellation waits for ever",
        batteries=("tests/module/test_author_sins.py",),
    ),
    Mutant(
        name="execution-time-ignored",
        promise="P5",
        file="session.py",
        old="        limit = self._options.execution_timeout\n",
        new="        limit = None\n",
        breaks="nothing bounds how long a job runs",
        batteries=("tests/module/test_timeouts.py",),
    ),
    Mutant(
        name="stop-waits-for-the-provider",
        promise="P5",
        file="servicer.py",
        old="        try:\n            await self.directory.stop(message.job_id)\n",
        new="        from dk_trio.signals import Signal, SignalAction\n\n"
        "        try:\n"
        "            if hasattr(self._signals, 'deliver'):\n"
        "                await self._signals.deliver(Signal(task_id=message.job_id, action=SignalAction.STOP))\n"
        "            await self.directory.stop(message.job_id)\n",
        breaks="StopModule takes effect when the provider has taken a signal, or never",
        batteries=("tests/module/test_remote_signals.py",),
    ),
    Mutant(
        name="waiter-cancels-the-fetch",
        promise="P9",
        file="services/setup_cache.py",
        old="        await flight.ended.wait()\n        answer = flight.answer\n",
        new="        try:\n"
        "            await flight.ended.wait()\n"
        "        except trio.Cancelled:\n"
        "            flight.scope.cancel()\n"
        "            raise\n"
        "        answer = flight.answer\n",
        breaks="a caller that leaves fails those who wait for the same setup",
        batteries=("tests/services/test_setup_cache.py",),
    ),
    Mutant(
        name="mistyped-variable",
        promise="P10",
        file="settings/_names.py",
        old="        if name.startswith(_PREFIXES) and name not in read",
        new="        if not name.startswith(_PREFIXES) and name not in read",
        breaks="a variable with a typing error in its name is not reported",
        batteries=("tests/settings/test_settings.py", "tests/settings/test_sources.py"),
    ),
    Mutant(
        name="bad-value-becomes-the-default",
        promise="P10",
        file="settings/_reading.py",
        old="            except SettingError as error:\n                errors.append(error)\n            else:\n",
        new="            except SettingError:\n                pass\n            else:\n",
        breaks="a value that does not parse is ignored without a word",
        batteries=("tests/settings/test_bad_values.py",),
    ),
)
