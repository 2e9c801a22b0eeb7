"""Process 1 of a podman host (``podman_init.py GROUP``, in new namespaces): ends, with all, on end of input.

Tells its process id as those outside see it, once all is mounted. SIGCHLD is ignored, so that the kernel
reaps what conmon leaves behind: podman waits for processes that it takes to be alive.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def main(group: str) -> None:
    """Set up, wait, clear up."""
    pid = Path("/proc/self").readlink()
    mounts = [("proc", "/proc"), *(("tmpfs", folder) for folder in ("/run", "/var/lib", "/dev/shm"))]
    for kind, folder in mounts:
        subprocess.run(["mount", "-t", kind, kind, folder], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for folder in ("/run/cnibin", "/run/netconf", "/var/lib/containers"):
        Path(folder).mkdir(parents=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    sys.stdin.read()
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    for _ in range(40):
        if not remaining(group):
            return
        time.sleep(0.05)


def remaining(group: str) -> list[Path]:
    """The control groups of that name that could not be removed (yet), in every hierarchy."""
    tops = [p for p in (CGROUPS / group, *CGROUPS.glob(f"*/{group}")) if p.is_dir()]
    for top in tops:
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
    return [top for top in tops if top.exists()]


main(sys.argv[1])
