"""Being on time on a busy machine: real-time where it is allowed, else a better nice value, else neither.

A prober that waits for the processor measures the scheduler. Round-robin at the lowest real-time priority
puts it before ordinary processes only; the kernel's throttling (sched_rt_runtime_us) still bounds it.
"""

import os
from contextlib import suppress

_NICE = -15


def be_on_time() -> None:
    """As far as privileges and limits (RLIMIT_RTPRIO, RLIMIT_NICE) go; never fails."""
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(1))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
