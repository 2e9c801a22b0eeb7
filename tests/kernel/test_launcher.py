"""The launcher as a container runs it: another user, bounding set NET_ADMIN, a file capability. As root only:
a file capability and another uid need one.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from towpath.image.launcher import capability, compile_to

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        os.geteuid() != 0 or "4294967295" not in Path("/proc/self/uid_map").read_text(),
        reason="other uids and file capabilities need root of the machine",
    ),
]

SOURCE = Path(__file__).parents[2]
AGENT, NET_ADMIN = 10531, 1 << 12
PROGRAM = Path("/usr/bin/python3")


@contextlib.contextmanager
def reachable() -> Iterator[Path]:
    """A folder that other users can enter; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory(prefix="towpath-test-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Path]:
    with reachable() as folder:
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip(f"{folder} is mounted nosuid, where file capabilities do not count")
        made = folder / "towpath-launch"
        compile_to(made, SOURCE)
        made.chmod(0o755)
        os.setxattr(made, "security.capability", capability())
        yield made


def contained(
    *, bounding: int = NET_ADMIN, no_new_privs: bool = False, uid: int = AGENT
) -> Callable[[], None]:
    """What a runtime does to a process before it executes the container's command."""

    def become() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        for number in range(64):
            if not bounding >> number & 1 and libc.prctl(23, number, 0, 0, 0) == 1:  # PR_CAPBSET_READ, _DROP
                assert libc.prctl(24, number, 0, 0, 0) == 0
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        header = struct.pack("=Ii", 0x20080522, 0)
        assert libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)) == 0
        if no_new_privs:
            assert libc.prctl(38, 1, 0, 0, 0) == 0

    return become


def launched(
    launcher: Path, code: str, become: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [launcher, PROGRAM, "-I", "-c", code],
        preexec_fn=become or contained(),
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


def told(launcher: Path, code: str) -> dict[str, object]:
    done = launched(launcher, code)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


STATUS = """
import json
lines = open("/proc/self/status").read().splitlines()
print(json.dumps({k: v.split()[0] for k, _, v in (l.partition(":") for l in lines) if v.split()}))
"""


def test_one_capability_and_no_way_to_another(launcher: Path) -> None:
    status = told(launcher, STATUS)
    only = f"{NET_ADMIN:016x}"
    assert [status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [only] * 5
    assert (status["NoNewPrivs"], status["Seccomp"], status["Uid"]) == ("1", "2", str(AGENT))


def test_without_the_launcher_the_same_process_has_none() -> None:
    done = subprocess.run(
        [PROGRAM, "-I", "-c", STATUS],
        preexec_fn=contained(),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert int(json.loads(done.stdout)["CapEff"], 16) == 0, "else the launcher would not be needed"


@pytest.mark.parametrize(
    "become", [contained(no_new_privs=True), contained(bounding=1 << 13)], ids=["no escalation", "not added"]
)
def test_what_is_missing_is_said(launcher: Path, become: Callable[[], None]) -> None:
    try:
        done = launched(launcher, "print('started')", become)
    except PermissionError:  # the kernel refuses to execute a file whose capability is out of bounds
        return
    assert done.returncode == 7
    assert "allowPrivilegeEscalation: true" in done.stderr
    assert "started" not in done.stdout


def test_usage_and_a_missing_program(launcher: Path) -> None:
    done = subprocess.run([launcher], capture_output=True, text=True, preexec_fn=contained())
    assert (done.returncode, done.stderr[:6]) == (2, "usage:")
    done = subprocess.run([launcher, "/absent"], capture_output=True, text=True, preexec_fn=contained())
    assert done.returncode == 7
    assert "/absent: No such file or directory" in done.stderr


TRIES = """
import ctypes, errno, json, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    ctypes.set_errno(0)
    return "ok" if function(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
def opened(family, kind=socket.SOCK_DGRAM):
    try:
        socket.socket(family, kind).close()
        return "ok"
    except OSError as refused:
        return errno.errorcode[refused.errno]
own = os.open("/proc/self/ns/net", os.O_RDONLY)
print(json.dumps({
    "unshare user": call(libc.unshare, 0x10000000), "unshare net": call(libc.unshare, 0x40000000),
    "setns": call(libc.setns, own, 0), "mount": call(libc.mount, b"x", b"/tmp", b"tmpfs", 0, None),
    "ptrace": call(libc.ptrace, 0, 0, 0, 0), "chroot": call(libc.chroot, b"/"),
    "bpf": call(libc.syscall, 321 if os.uname().machine == "x86_64" else 280, 0, 0, 0),
    "io_uring": call(libc.syscall, 425, 1, 0), "keyctl": call(libc.syscall, 250, 0, 0, 0, 0, 0),
    "clone newns": call(libc.syscall, 56, 0x20000000 | 17, 0, 0, 0, 0),
    "packet": opened(17, 3), "alg": opened(38, 5), "vsock": opened(40, 1),
    "inet": opened(socket.AF_INET), "inet6": opened(socket.AF_INET6), "unix": opened(socket.AF_UNIX),
    "netlink": opened(socket.AF_NETLINK, socket.SOCK_RAW),
}))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
def test_the_filter_lets_through_what_an_agent_needs_and_nothing_that_leads_out(launcher: Path) -> None:
    answers = told(launcher, TRIES)
    allowed = {"inet", "inet6", "unix", "netlink"}
    assert {name for name, answer in answers.items() if answer == "ok"} == allowed
    assert {answer for name, answer in answers.items() if name not in allowed} == {"EPERM"}


NET = """
import json, socket, struct
rtnl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
rtnl.bind((0, 0))
info = b"bridge\\0".ljust(8, b"\\0")
kind = struct.pack("=HH", 4 + 7, 1) + info
linkinfo = struct.pack("=HH", 4 + len(kind), 18) + kind
name = struct.pack("=HH", 4 + 7, 3) + b"tplnch\\0" + b"\\0"
body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + name + linkinfo
rtnl.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
print(json.dumps({"error": struct.unpack_from("=i", rtnl.recv(4096), 16)[0]}))
"""


def test_the_one_capability_is_enough_to_make_a_link_and_without_it_none_is_made(launcher: Path) -> None:
    """In a network namespace of the test's own, of this user namespace."""

    def apart(become: Callable[[], None]) -> Callable[[], None]:
        def inside() -> None:
            os_unshare = ctypes.CDLL(None, use_errno=True).unshare
            assert os_unshare(0x40000000) == 0
            become()

        return inside

    made = launched(launcher, NET, apart(contained()))
    assert json.loads(made.stdout) == {"error": 0}, made.stderr
    refused = subprocess.run(
        [PROGRAM, "-I", "-c", NET], preexec_fn=apart(contained()), capture_output=True, text=True, cwd="/"
    )
    assert json.loads(refused.stdout) == {"error": -1}


WORK = """
import asyncio, concurrent.futures, json, os, sqlite3, ssl, tempfile, threading
os.close(os.memfd_create("certificate"))
with tempfile.TemporaryDirectory() as folder:
    base = sqlite3.connect(folder + "/x.db")
    base.execute("pragma journal_mode=wal"); base.execute("create table t(a)"); base.commit(); base.close()
async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read(); writer.close(); server.close()
    return await loop.run_in_executor(None, threading.get_ident)
ssl.create_default_context()
print(json.dumps({"done": bool(asyncio.run(main()))}))
"""
WORKS = {"done": True}


def test_threads_connections_and_files_work_under_the_filter(launcher: Path) -> None:
    assert told(launcher, WORK) == WORKS


def test_no_process_is_started_under_the_filter(launcher: Path) -> None:
    """An agent starts none: whoever takes one over finds no way to a program beside it."""
    for start in ("os.fork()", "os.posix_spawn('/bin/true', ['true'], {})"):
        done = launched(launcher, f"import os; {start}; print('started')")
        assert (done.returncode, done.stdout) == (1, "")
        assert "PermissionError: [Errno 1]" in done.stderr


@pytest.mark.parametrize(
    "call", ["execve", "getsockname", "socketpair", "bind", "listen", "memfd_create", "fdatasync"]
)
def test_with_one_call_less_the_filter_is_too_tight(call: str) -> None:
    with reachable() as folder:
        shutil.copytree(SOURCE / "shim", folder / "shim")
        header = folder / "shim/syscalls.h"
        assert f"ALLOW({call})" in header.read_text()
        header.write_text(header.read_text().replace(f"ALLOW({call})", ""))
        tighter = folder / "towpath-launch"
        compile_to(tighter, folder)
        tighter.chmod(0o755)
        os.setxattr(tighter, "security.capability", capability())
        done = launched(tighter, WORK)
    assert done.returncode != 0
    assert re.search("(?i)operation not permitted|disk i/o error", done.stderr)


# ---- what each boundary of docs/security.md stops


def as_agent(code: str, uid: int = AGENT) -> str:
    done = subprocess.run(
        [PROGRAM, "-I", "-c", code],
        preexec_fn=contained(uid=uid),
        capture_output=True,
        text=True,
        cwd="/",
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else "ok"


@pytest.fixture
def node() -> Iterator[Path]:
    """A node's folders as the installer leaves them, run as the pod runs it: root without capabilities."""
    with reachable() as folder:
        for name in ("bin", "net.d", "run", "state"):
            (folder / name).mkdir()
        installed(folder)
        yield folder


def installed(folder: Path) -> None:
    def become() -> None:
        os.setgroups([])
        os.setresgid(AGENT, AGENT, AGENT)
        libc = ctypes.CDLL(None, use_errno=True)
        for number in range(64):
            if libc.prctl(23, number, 0, 0, 0) == 1:
                assert libc.prctl(24, number, 0, 0, 0) == 0
        assert libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24)) == 0
        assert libc.prctl(38, 1, 0, 0, 0) == 0

    command = [sys.executable, "-m", "towpath.install.node", f"--cni-bin={folder}/bin",
               f"--conflist={folder}/net.d/10-towpath.conflist", f"--socket-folder={folder}/run",
               f"--state={folder}/state", f"--uid={AGENT}", f"--gid={AGENT}"]  # fmt: skip
    for _ in range(2):  # again on what it left
        subprocess.run(command, preexec_fn=become, check=True, capture_output=True)


def test_the_installer_needs_no_capability(node: Path) -> None:
    for name in ("run", "state"):
        found = (node / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, AGENT, 0o770)
    assert (node / "bin/towpath-cni").stat().st_mode & 0o7777 == 0o755


def test_the_agent_works_in_its_folders_and_writes_no_cni_folder(node: Path) -> None:
    for name in ("run", "state"):
        assert as_agent(f"open('{node}/{name}/x', 'w')") == "ok"
    for name in ("bin/towpath-cni", "net.d/10-towpath.conflist", "bin/new", "net.d/00-evil.conflist"):
        assert "Permission denied" in as_agent(f"open('{node}/{name}', 'a')")


def test_another_user_reaches_neither_socket_nor_leases(node: Path) -> None:
    assert as_agent(f"import socket; socket.socket(1).bind('{node}/run/cni.sock')") == "ok"
    for code in (
        f"import socket; socket.socket(1).connect('{node}/run/cni.sock')",
        f"open('{node}/state/leases.db')",
    ):
        assert "Permission denied" in as_agent(code, uid=4711)


def test_files_of_another_uid_are_named_and_left_alone(node: Path) -> None:
    lease = node / "state/leases.db"
    lease.write_bytes(b"leases")
    os.chown(lease, 4711, 4711)
    from towpath.install.node import InstallError, install

    with pytest.raises(InstallError, match=r"leases\.db belongs to uid 4711, not 10531"):
        install(
            node / "bin", node / "net.d/10-towpath.conflist", node / "run", node / "state", (AGENT, AGENT)
        )
    assert lease.read_bytes() == b"leases"
