"""Where a lab is reached from the host: one folder a lab, with its control socket and kubeconfig.

``$XDG_RUNTIME_DIR/towpath/lab/NAME`` or ``/tmp/towpath-UID/lab/NAME``, mode 0700. Everything else a lab has
is inside its own mount namespace and goes with its last process.
"""

import contextlib
import errno
import json
import os
import re
import socket
import stat
from pathlib import Path

import msgspec

CONTROL, KUBECONFIG, LOG, ABOUT = "control.sock", "kubeconfig", "lab.log", "lab.json"
FILES = (CONTROL, KUBECONFIG, LOG, ABOUT)

_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")


class LabError(Exception):
    """The lab could not do what was asked. ``hint`` what to do, ``code`` a TP9 code; both may be empty."""

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message + (f": {hint}" if hint else "") + (f" [{code}]" if code else ""))
        self.message, self.hint, self.code = message, hint, code


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher writes into ``lab.json`` for those who find the folder later."""

    name: str
    keeper: int
    nodes: tuple[str, ...]


def base() -> Path:
    """The folder of all labs of this user; made when missing. Raises LabError if somebody else owns it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK):
        path = Path(runtime, "towpath", "lab")
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path
    top = Path(f"/tmp/towpath-{os.getuid()}")  # noqa: S108 (owner and mode are checked below)
    top.mkdir(mode=0o700, exist_ok=True)
    about = top.lstat()
    if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077 or not stat.S_ISDIR(about.st_mode):
        raise LabError(f"{top} belongs to somebody else", "remove it or set XDG_RUNTIME_DIR", "TP9002")
    path = top / "lab"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def path_of(name: str) -> Path:
    """The folder of lab ``name``. Raises LabError on a name that is no DNS label."""
    if not _NAME.match(name):
        raise LabError(f"{name!r} cannot name a lab", "use up to 32 lower-case letters, digits and dashes")
    return base() / name


def is_alive(folder: Path) -> bool:
    """Whether anybody listens on the folder's control socket. A stale folder refuses at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(folder / CONTROL))
        except BlockingIOError:
            return True  # backlog full: very much alive
        except OSError:
            return False
        return True


def remove(folder: Path) -> None:
    """Delete the folder of a lab that is gone: the known files and nothing else.

    Raises LabError where somebody else has put something there.
    """
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return  # its keeper was quicker
    except OSError as kept:
        if kept.errno != errno.ENOTEMPTY:
            raise
        others = ", ".join(sorted(one.name for one in folder.iterdir()))
        raise LabError(f"{folder} holds what is no lab's: {others}", "move it away", "TP9002") from kept


def names() -> list[str]:
    """Labs of this user that run; folders of labs whose processes are gone are removed on the way.

    One in which somebody keeps something stays.
    """
    running = []
    for folder in sorted(base().iterdir()):
        if is_alive(folder):
            running.append(folder.name)
        elif folder.is_dir():
            with contextlib.suppress(LabError):
                remove(folder)
    return running


def only_running() -> str:
    """The name of the lab meant when none is given. Raises LabError unless exactly one runs."""
    running = names()
    if len(running) == 1:
        return running[0]
    if not running:
        raise LabError("no lab is running", "start one with `towpath lab up`", "TP9003")
    raise LabError(f"several labs are running ({', '.join(running)})", "choose one with --name")


def read_about(folder: Path) -> About:
    """``lab.json``. Raises LabError when it is missing or damaged."""
    try:
        return msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.DecodeError) as broken:
        raise LabError(f"{folder / ABOUT}: {broken}") from broken


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, complete or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def as_line(message: dict[str, object]) -> bytes:
    """One message of the control protocol: a JSON object on a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
