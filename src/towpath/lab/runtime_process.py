"""The first moments of a container's process: from fork to exec, or to the echo workload."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from towpath.lab import namespaces, rootfs
from towpath.lab.runtime_api import Exec, Start

_INSIDE = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWNS
_MOST_DESCRIPTORS = 4096
# The interpreter that runs the lab comes first: `python -m towpath…` in a pod means this very Towpath.
DEFAULT_PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def guarded(child: Callable[[], None]) -> NoReturn:
    """Run the child and leave the process, whatever happens; 127 as a shell for what could not start."""
    code = 127
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        child()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except OSError as refused:
        with suppress(OSError):
            os.write(2, f"container did not start: {refused}\n".encode())
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        os._exit(code)


def run(spec: Start, netns: str, stdout: int, stderr: int, begun: int) -> None:
    """Enter the container's namespaces and become its program. Does not return on success with ``argv``.

    ``begun``, the end of a pipe, closes on exec, or when the echo workload listens.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, begun)
    os.closerange(begun + 1, _MOST_DESCRIPTORS)
    if netns:
        _enter_network(netns)
    namespaces.unshare(namespaces.CLONE_NEWNS | (namespaces.CLONE_NEWUTS if spec.hostname else 0))
    rootfs.enter_container(spec.mounts, read_only=spec.read_only)
    if spec.hostname:
        socket.sethostname(spec.hostname)
    if not spec.argv:
        from towpath.lab import workload

        namespaces.set_name("echo")
        workload.serve(spec.echo, lambda: os.close(begun))
        return
    if spec.image and (root := rootfs.image_root(spec.image)).exists():
        rootfs.enter_image(root, spec.mounts)
    os.chdir(spec.cwd)
    namespaces.drop_bounding(frozenset(spec.drop))
    _execute(spec.argv, spec.env)


def run_exec(request: Exec, into: int, netns: str, fds: list[int]) -> None:
    """``kubectl exec``: join the namespaces of process ``into`` (0: the node's), then execute."""
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.setsid()
    if request.tty:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _close_above_stdio()
    if into:
        pidfd = os.pidfd_open(into)
        namespaces.setns(pidfd, _INSIDE)
        os.close(pidfd)
        os.chdir("/")
        _fork_into_pid_namespace()
    if netns:
        _enter_network(netns)
    _execute(request.argv, request.env)


def _fork_into_pid_namespace() -> None:
    """Entering a PID namespace takes effect for children: the parent stays to pass on the exit code."""
    pid = os.fork()
    if pid == 0:
        namespaces.die_with_parent()
        return
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the terminal's signals are for the child
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _enter_network(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd, namespaces.CLONE_NEWNET)
    os.close(fd)


def _execute(argv: tuple[str, ...], env: dict[str, str]) -> None:
    # A Towpath that runs from a source tree is found by PYTHONPATH, in its pods as well.
    inherited = {key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ}
    environment = {"PATH": DEFAULT_PATH, "HOME": "/root", **inherited, **env}
    os.execvpe(argv[0], list(argv), environment)  # noqa: S606


def _close_above_stdio() -> None:
    os.closerange(3, _MOST_DESCRIPTORS)
