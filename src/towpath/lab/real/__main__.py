"""``python -m towpath.lab.real``: have the Kubernetes binaries ready, and print their folder."""

import sys
import time

from towpath.lab.real.binaries import find_binaries
from towpath.lab.rundir import LabError

_EVERY = 30.0  # seconds between lines that say the same again with another time


class _Progress:
    """One line that is rewritten on a terminal; elsewhere a line for each step, and now and then."""

    def __init__(self) -> None:
        self._step, self._said = "", 0.0

    def __call__(self, text: str) -> None:
        step, now = text.partition(" (")[0], time.monotonic()
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{text}")
        elif step != self._step or now - self._said > _EVERY:
            sys.stderr.write(f"{text}\n")
            self._said = now
        self._step = step
        sys.stderr.flush()

    def done(self) -> None:
        """Leave the terminal's line."""
        if self._step and sys.stderr.isatty():
            sys.stderr.write("\r\033[K")


def main() -> int:
    """0, or 7 after one sentence (the exit code of a missing precondition)."""
    progress = _Progress()
    try:
        binaries = find_binaries(progress)
    except LabError as error:
        progress.done()
        sys.stderr.write(f"towpath: {error}\n")
        return 7
    progress.done()
    sys.stdout.write(f"Kubernetes {binaries.version} in {binaries.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
