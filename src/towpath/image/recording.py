"""Which system calls the agents of this machine make while a command runs: ``make record-seccomp``.

    python -m towpath.image.recording COMMAND [ARGUMENT...]

Root only. The kernel's own trace point (tracefs, ``raw_syscalls/sys_enter``) tells of every call of a
process named ``towpath-agent``, which agents name themselves, in whatever namespace a suite starts them. A
call that was told of once is filtered out in the kernel: agents are not slowed down and nothing is lost.
What happens before an agent has its name (interpreter, imports) is seen by strace, with an agent that ends
at once. What is found is added to ``image/syscalls-recorded.json``; header and profile are made anew.
"""

import contextlib
import ctypes
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from towpath.image import seccomp
from towpath.image.apt import run
from towpath.image.build import project
from towpath.image.errors import ImageError

PROCESS_NAME = "towpath-agent"
_BUFFER_KB = 16384  # a processor
_EVENT = re.compile(r" NR (\d+) \(")


def numbers() -> dict[int, str]:
    """Names of this architecture's system calls, from the kernel's headers. Raises ImageError."""
    defined = run(["cc", "-dM", "-E", "-include", "sys/syscall.h", "-x", "c", "/dev/null"])
    return {
        int(number): name for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", defined, re.MULTILINE)
    }


@contextlib.contextmanager
def _instance() -> Iterator[Path]:
    """A tracing instance of our own; others' tracing goes on undisturbed. Raises ImageError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="towpath-trace-") as folder:
        if libc.mount(b"tracefs", folder.encode(), b"tracefs", 0, None) != 0:
            raise ImageError(
                f"mount tracefs: {os.strerror(ctypes.get_errno())}", "run as root of the machine"
            )
        instance = Path(folder, "instances", f"towpath-{os.getpid()}")
        try:
            instance.mkdir()
            yield instance
        finally:
            with contextlib.suppress(FileNotFoundError):
                instance.rmdir()
            libc.umount2(folder.encode(), 0)


class Recorder:
    """Numbers of calls, read from one tracing instance until it is stopped."""

    def __init__(self, instance: Path) -> None:
        self._instance = instance
        self._event = instance / "events/raw_syscalls/sys_enter"
        self.seen: set[int] = set()
        (instance / "buffer_size_kb").write_text(str(_BUFFER_KB))
        self._narrow()
        (self._event / "enable").write_text("1")

    def read(self, pipe: int) -> None:
        """Until ``pipe`` (trace_pipe, not blocking) is empty."""
        rest = ""
        with contextlib.suppress(BlockingIOError):
            while text := os.read(pipe, 1 << 16).decode(errors="replace"):
                whole, _, rest = (rest + text).rpartition("\n")
                found = {int(number) for number in _EVENT.findall(whole)} - self.seen
                if found:
                    self.seen |= found
                    self._narrow()

    def lost(self) -> int:
        """Events that found no room."""
        told = "\n".join(cpu.read_text() for cpu in self._instance.glob("per_cpu/cpu*/stats"))
        return sum(int(count) for count in re.findall(r"(?:overrun|dropped events): (\d+)", told))

    def _narrow(self) -> None:
        wanted = [f'comm == "{PROCESS_NAME}"', *(f"id != {number}" for number in sorted(self.seen))]
        (self._event / "filter").write_text(" && ".join(wanted))


def during(command: list[str]) -> tuple[set[int], int]:
    """Numbers of the calls that agents make while ``command`` runs, and its exit code. Raises ImageError."""
    with _instance() as instance:
        recorder, ended = Recorder(instance), threading.Event()

        def follow() -> None:
            pipe = os.open(instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
            try:
                while not ended.wait(0.05):
                    recorder.read(pipe)
                recorder.read(pipe)
            finally:
                os.close(pipe)

        reader = threading.Thread(target=follow)
        reader.start()
        try:
            code = subprocess.run(command, check=False).returncode
        finally:
            ended.set()
            reader.join()
        if lost := recorder.lost():
            raise ImageError(f"{lost} system calls were not recorded", "a larger _BUFFER_KB")
        return recorder.seen, code


def starting() -> set[str]:
    """What an agent calls before it has its name: one with a flag that does not exist. Raises ImageError."""
    with tempfile.NamedTemporaryFile("r") as output:
        command = ["strace", "-f", "-qq", "-o", output.name, sys.executable, "-m", "towpath.agent", "--none"]
        if subprocess.run(command, check=False, capture_output=True).returncode != 2:
            raise ImageError("an agent cannot be started under strace", "apt install strace")
        return set(re.findall(r"^(?:\d+ +)?(\w+)\(", output.read(), re.MULTILINE))


def main() -> None:
    """Record, and write."""
    command = sys.argv[1:]
    root = project()
    try:
        seccomp.load(root)  # says at once if it cannot be added to
        names, first = numbers(), starting()
        found, code = during(command)
        before = seccomp.load(root)
    except ImageError as e:
        sys.exit(str(e))
    after = before.with_recorded(first | {names[number] for number in found}, " ".join(command))
    for name in sorted(set(after.calls) - set(before.calls)):
        sys.stderr.write(f"new: {name}\n")
    after.save(root)
    seccomp.write(root)
    if both := sorted(after.recorded & {call for reason in after.beyond for call in reason.calls}):
        sys.stderr.write(f"{seccomp.BEYOND} need not name any more: {', '.join(both)}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
