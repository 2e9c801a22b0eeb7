"""A long-lived program of the cluster: a log, a network namespace, and never a life beyond its parent's."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from towpath.lab import namespaces
from towpath.lab.rundir import LabError

_LOG_TAIL_BYTES = 8192


class Daemon:
    """One program, stopped at first.

    The kernel kills it when the *thread* that started it ends (PR_SET_PDEATHSIG): start it from one that
    stays, such as the main thread.
    """

    def __init__(self, name: str, log: Path, netns: int | None = None) -> None:
        """``netns`` a descriptor of the network namespace it lives in; None is the caller's."""
        self.name, self.log, self._netns = name, log, netns
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, 0 while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def ended(self) -> bool:
        """Whether it was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def start(self, argv: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start it. Raises LabError when it cannot be executed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        own = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": "/"}
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    argv,
                    env=own | (environment or {}),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=self._enter,
                )
        except (OSError, subprocess.SubprocessError) as refused:
            raise LabError(f"{self.name} cannot be started: {refused}", code="TP9024") from refused

    def _enter(self) -> None:
        if self._netns is not None:
            namespaces.setns(self._netns, namespaces.CLONE_NEWNET)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        namespaces.die_with_parent()

    def stop(self, grace: float = 5.0) -> None:
        """SIGTERM, SIGKILL after ``grace`` seconds (at once for 0); returns when it is gone."""
        if self._process is None:
            return
        if grace > 0:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
        else:
            self._process.kill()
        self._process.wait()
        self._process = None

    def require_alive(self) -> None:
        """Raises LabError with its last words when it has ended by itself."""
        if self._process is not None and (status := self._process.poll()) is not None:
            raise LabError(
                f"{self.name} ended with status {status}: {last_words(self.log)}",
                f"its log is {self.log}",
                "TP9024",
            )


def last_words(log: Path) -> str:
    """The last line of a log that is not empty; "" where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    complaints = [line for line in lines if line.startswith(("Error:", "error:", "F", "panic"))]
    return next((line for line in reversed(complaints or lines) if line), "")[:300]
