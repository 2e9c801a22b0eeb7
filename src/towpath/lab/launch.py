"""``towpath lab up``, outside: claim a folder, fork the keeper into namespaces, wait until the lab is Ready.

Process tree, each a plain fork (Python and its imports are paid for once):

    towpath lab up ── keeper (new user, net, mount, pid… namespaces; waits)
       │                └── supervisor (pid 1 of the lab; see ``supervisor``)
       └── sh: janitor, blocked on a pipe that every process of the lab holds open

Once the API server answers, the launcher may fill the cluster; then it says "install", and the network is
installed. Whatever is killed, everything goes: the supervisor has the keeper's death signal, pid 1's death
ends its namespace, and when the last holder of the pipe is gone the janitor removes the folder's files.
Until ``lab up`` has said "detach", its own death ends the lab too.
"""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from towpath.lab import namespaces, rundir
from towpath.lab.rundir import LabError
from towpath.lab.topology import LabSpec

DETACH, INSTALL = b"detach\n", b"install\n"

_ISOLATION = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC
)
# $0: the folder's name. Not a Python process, and its command line does not say towpath: a
# `pkill -9 -f towpath` must leave the one that cleans up after it.
_JANITOR = 'read -r _; rm -f -- {files}; cd .. && rmdir -- "$0" 2>/dev/null'


class Inherited(msgspec.Struct, frozen=True):
    """What the lab inherits: control and API sockets (listening), the launcher, two lifelines; its folder.

    ``folder`` cannot be found again inside: there the user's id is another.
    ``lifeline`` is held by every process of the lab (the janitor waits for its end); ``keeper_gone`` reads
    end-of-file when the keeper is no more.
    """

    control: int
    api: int
    launcher: int
    lifeline: int
    keeper_gone: int
    folder: str


def launch(
    spec: LabSpec, progress: Callable[[str], None], furnish: Callable[[Path], None] | None = None
) -> Path:
    """Start the lab and return its folder once the cluster is Ready. Raises LabError; nothing stays then.

    ``furnish`` is called with the kubeconfig before the network is installed: what it writes is there when
    agents start, as after a power cut. Its exceptions end the lab, too.
    """
    require_libraries()
    if spec.ipv6 and not Path("/proc/net/if_inet6").exists():
        raise LabError("this kernel has IPv6 switched off", "use --ipv4", "TP9009")
    folder = rundir.path_of(spec.name)
    with _claimed(folder) as control, _listen_on_loopback() as api:
        ours, theirs = socket.socketpair()
        lifeline_read, lifeline = os.pipe()
        janitor = _start_janitor(folder, lifeline_read)
        os.close(lifeline_read)
        log = os.open(folder / rundir.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        keeper = os.fork()
        if keeper == 0:
            fds = (control.fileno(), api.fileno(), theirs.fileno(), lifeline)
            _keep(spec, folder, fds, log)
        for fd in (lifeline, log):
            os.close(fd)
        theirs.close()
        about = rundir.About(name=spec.name, keeper=keeper, nodes=tuple(n.name for n in spec.nodes))
        rundir.write_private(folder / rundir.ABOUT, msgspec.json.encode(about).decode())
        with ours:
            try:
                _wait_until_ready(ours, folder, progress, furnish)
            except BaseException:
                ours.close()  # before the wait: the supervisor ends when this socket does
                with suppress(ChildProcessError):
                    os.waitpid(keeper, 0)
                janitor.wait()
                raise
    return folder


def _listen_on_loopback() -> socket.socket:
    """A listening socket on a free port that keeps it when ``api-down`` stops listening.

    A port the kernel chose is given back by shutdown(2), one asked for by number is not; hence two binds.
    """
    for _attempt in range(20):
        with socket.create_server(("127.0.0.1", 0)) as chosen:
            port = chosen.getsockname()[1]
        with suppress(OSError):  # somebody else took it in between
            return socket.create_server(("127.0.0.1", port), backlog=512)
    raise LabError("no free TCP port on 127.0.0.1")


def require_libraries() -> None:
    """Raises LabError naming the packages that are missing on this machine."""
    try:
        ctypes.CDLL("libnftables.so.1")
    except OSError:
        raise LabError(
            "the nftables library is missing",
            "install libnftables1 (Debian: apt install libnftables1)",
            "TP9005",
        ) from None


@contextmanager
def _claimed(folder: Path) -> Iterator[socket.socket]:
    """The folder, ours, with its listening control socket. A stale one is replaced, a live one an error."""
    lock = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            if rundir.is_alive(folder):
                raise LabError(f"lab {folder.name!r} is running", "`towpath lab down` ends it", "TP9006")
            rundir.remove(folder)
        folder.mkdir(mode=0o700)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(str(folder / rundir.CONTROL))
        control.listen(64)
    finally:
        os.close(lock)
    with control:
        yield control


def _start_janitor(folder: Path, lifeline_read: int) -> subprocess.Popen[bytes]:
    script = _JANITOR.format(files=" ".join(rundir.FILES))
    return subprocess.Popen(
        ["/bin/sh", "-c", script, folder.name],
        cwd=folder,
        stdin=lifeline_read,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={},
    )


def _wait_until_ready(
    launcher: socket.socket,
    folder: Path,
    progress: Callable[[str], None],
    furnish: Callable[[Path], None] | None,
) -> None:
    """Show progress; write the kubeconfig when it comes; let go when the lab says it is ready."""
    with launcher.makefile("rb") as lines:
        for line in lines:
            message: dict[str, Any] = msgspec.json.decode(line)
            if "progress" in message:
                progress(message["progress"])
            elif "error" in message:
                raise LabError(message["error"], message.get("hint", ""), message.get("code", ""))
            elif "kubeconfig" in message:
                rundir.write_private(folder / rundir.KUBECONFIG, message["kubeconfig"])
            elif "api" in message:
                if furnish is not None:
                    furnish(folder / rundir.KUBECONFIG)
                launcher.sendall(INSTALL)
            elif "ready" in message:
                launcher.sendall(DETACH)
                return
    log = folder / rundir.LOG
    tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    raise LabError("the lab ended while it was starting", " / ".join(tail), "TP9007")


def _keep(spec: LabSpec, folder: Path, fds: tuple[int, int, int, int], log: int) -> NoReturn:
    """The keeper: enter namespaces, fork the supervisor as their pid 1, wait for it."""
    code = 1
    try:
        os.setsid()
        _redirect(log)
        keep_open, keeper_gone = os.pipe()[::-1]
        _close_others({0, 1, 2, *fds, keep_open, keeper_gone})
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        control, api, launcher, lifeline = fds
        inherited = Inherited(control, api, launcher, lifeline, keeper_gone, str(folder))
        code = _keep_supervisor(spec, inherited, keep_open)
    except LabError as known:
        message = {"error": known.message, "hint": known.hint, "code": known.code}
        with suppress(OSError):
            os.write(fds[2], rundir.as_line(dict(message)))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _keep_supervisor(spec: LabSpec, inherited: Inherited, keep_open: int) -> int:
    isolate()
    pid = os.fork()
    if pid == 0:
        os.close(keep_open)
        from towpath.lab import supervisor  # the heavy imports: after the launcher's first sign of life

        supervisor.main(spec, inherited)
    namespaces.set_name("lab-keeper")
    # Only the lifelines stay: the launcher must see end-of-file when the supervisor is gone.
    _close_others({0, 1, 2, inherited.lifeline, keep_open})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def isolate() -> None:
    """Move this process into namespaces of its own: with a user namespace wherever that is allowed.

    Raises LabError where it is forbidden and the user is not root.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        namespaces.unshare(_ISOLATION | namespaces.CLONE_NEWUSER)
        namespaces.map_current_user(uid, gid)
        namespaces.make_private()
    except OSError as refused:
        if uid != 0:
            raise LabError(
                f"this machine forbids user namespaces to ordinary users ({refused.strerror or refused})",
                "allow them (sysctl user.max_user_namespaces=15000; Debian: "
                "kernel.unprivileged_userns_clone=1; "
                "Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0) or run as root",
                "TP9001",
            ) from refused
        try:
            namespaces.unshare(_ISOLATION)
            namespaces.make_private()
        except OSError as forbidden:
            raise LabError(
                f"this machine forbids namespaces even to root ({forbidden.strerror or forbidden})",
                "in a container, grant CAP_SYS_ADMIN, CAP_NET_ADMIN and a seccomp profile allowing unshare",
                "TP9001",
            ) from forbidden


def _redirect(log: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _close_others(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (descriptors, not paths)
        if int(name) not in keep:
            with suppress(OSError):
                os.close(int(name))
