"""One agent a node: a lock on the state folder that dies with its holder."""

import fcntl
import os
import time
from pathlib import Path

_POLL_SECONDS = 0.01


class AlreadyRunning(Exception):
    """Another agent holds the state folder. The text names it."""


class StateLock:
    """``state_dir/agent.lock``, held as long as this object is open. Raises AlreadyRunning, OSError.

    Another holder is given ``patience`` seconds to leave: an agent that was killed lingers while the kernel
    finishes what its threads are in, such as the deletion of a link.
    """

    def __init__(self, state_dir: Path, patience: float = 2.0) -> None:
        self.path = state_dir / "agent.lock"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if not self._take(time.monotonic() + patience):
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise AlreadyRunning(
                f"another agent (pid {holder}) uses {state_dir}: one agent a node; "
                "stop it first, or give this one another state_dir"
            )
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def _take(self, deadline: float) -> bool:
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL_SECONDS)
            else:
                return True

    def close(self) -> None:
        """Let go."""
        os.close(self._fd)
