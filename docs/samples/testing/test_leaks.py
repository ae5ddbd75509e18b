import threading

import pytest
from reminder import Reminders

from dk_trio.testing import LeakError, assert_no_leaks, run_job


async def test_a_job_leaves_nothing_behind(virtual_clock):
    await run_job(Reminders, {"text": "warm up", "after": 0}, protocol="remind")
    with assert_no_leaks():
        await run_job(Reminders, {"text": "tea", "after": 3600}, protocol="remind")


def test_a_thread_that_is_left_is_named():
    end = threading.Event()
    with pytest.raises(LeakError, match="thread poller"), assert_no_leaks(grace=0):
        threading.Thread(target=end.wait, name="poller").start()
    end.set()
