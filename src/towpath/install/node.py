r"""What the init container does to a node: shim, folders, and last the CNI configuration that makes it Ready.

    python -m towpath.install.node --cni-bin DIR --conflist FILE --socket-folder DIR --state DIR --uid N \
        --gid N

Every file is written beside its place, synced and renamed, so that a runtime, or another installer, never
sees half of one, however this process ends. What is right already is left alone: runtimes watch these
folders. The shim has its version in its name, and a link by the name that runtimes know: `ls -l` tells which
one is in force, and the one before stays until the next comes.
"""

import argparse
import os
import sys
from pathlib import Path

from towpath import __version__
from towpath.install import configuration
from towpath.install.hold import held, hold

SHIM = Path(__file__).parents[1] / "bin" / configuration.CNI_TYPE
_LOADED = (".conf", ".conflist", ".json")
_LEASE_FILES = ("leases.db", "leases.db-wal", "leases.db-shm")
_LOCK = "agent.lock"


class InstallError(Exception):
    """The node could not be prepared; the text says which file and why."""


def install(cni_bin: Path, conflist: Path, socket_folder: Path, state: Path, owner: tuple[int, int]) -> None:
    """Bring the node's files into place. ``owner`` is the agent's uid and gid. Raises InstallError."""
    try:
        for folder in (socket_folder, state):
            _own_folder(folder, owner)
        cni_bin.mkdir(parents=True, exist_ok=True)
        conflist.parent.mkdir(parents=True, exist_ok=True)
        _install_shim(cni_bin)
        _keep_off(conflist, state)
        socket = f"{socket_folder}/{configuration.CNI_SOCKET}\n"
        write(cni_bin / f"{configuration.CNI_TYPE}.socket", socket.encode(), 0o644)
        write(conflist, configuration.conflist().encode(), 0o644)  # from here on the runtime calls the shim
    except OSError as refused:
        raise InstallError(f"{refused.filename}: {refused.strerror}") from refused


def _install_shim(cni_bin: Path) -> None:
    """The shim by its version's name, and the names that runtimes and plugins know as links to it. Raises
    OSError.
    """
    name = f"{configuration.CNI_TYPE}-v{__version__}"
    write(cni_bin / name, SHIM.read_bytes(), 0o755)
    before = _link(cni_bin / configuration.CNI_TYPE, name)
    _link(cni_bin / configuration.IPAM_TYPE, name)
    if before != name:
        for other in cni_bin.glob(f"{configuration.CNI_TYPE}-v*"):
            if other.name not in (name, before):
                other.unlink()


def _link(path: Path, name: str) -> str:
    """Make ``path`` a link to ``name``, in one step; returns what it was a link to. Raises OSError."""
    before = os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115 - a name, not a place
    if before != name:
        partial = _partial(path)
        partial.unlink(missing_ok=True)
        partial.symlink_to(name)
        partial.replace(path)
        _sync_folder(path.parent)
    return before


def _keep_off(conflist: Path, state: Path) -> None:
    """Hold the agent where another network's configuration comes before ours: the pods there are not ours.

    ``towpath node takeover`` makes them so. A node that has leases of ours is ours already.
    """
    others = sorted(
        entry.name
        for entry in conflist.parent.iterdir()
        if entry.suffix in _LOADED and not entry.name.startswith(".") and entry.name < conflist.name
    )
    if others and not (state / _LEASE_FILES[0]).exists() and held(state) is None:
        reason = (
            f"the runtime uses {conflist.parent / others[0]}, another network's: run towpath node takeover"
        )
        hold(state, "all", reason)


def write(path: Path, content: bytes, mode: int) -> bool:
    """Make ``path`` hold ``content`` in one step, durably; whether it did not already. Raises OSError."""
    if _is(path, content, mode):
        return False
    partial = _partial(path)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    partial.replace(path)
    _sync_folder(path.parent)
    return True


def _partial(path: Path) -> Path:
    """Runtimes load what ends in .conf, .conflist or .json. What an earlier attempt left is overwritten."""
    return path.with_name(f".{path.name}.partial")


def _is(path: Path, content: bytes, mode: int) -> bool:
    try:
        found = path.lstat()
        return found.st_mode == 0o100000 | mode and found.st_uid == 0 and path.read_bytes() == content
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _own_folder(folder: Path, owner: tuple[int, int]) -> None:
    """``folder`` is root's and the agent's group's, and files of root's in it are writable for that group.

    It takes no capability: root may give its own files to a group it is in. Raises InstallError, OSError.
    """
    uid, gid = owner
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_gid != gid:
        os.chown(folder, -1, gid)
    if found.st_mode & 0o7777 != 0o770:
        folder.chmod(0o770)
    for path in (folder / name for name in (*_LEASE_FILES, _LOCK)):
        if not path.exists() or (there := path.stat().st_uid) == uid:
            continue
        if there != 0:
            raise InstallError(f"{path} belongs to uid {there}, not {uid}: chown it, or keep that uid")
        os.chown(path, -1, gid)
        path.chmod(0o660)


def main() -> int:
    """0, or 1 after one sentence on stderr: the init container is then started again."""
    parser = argparse.ArgumentParser(prog="towpath.install.node")
    for name in ("--cni-bin", "--conflist", "--socket-folder", "--state"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--uid", "--gid"):
        parser.add_argument(name, type=int, required=True)
    given = parser.parse_args()
    try:
        install(given.cni_bin, given.conflist, given.socket_folder, given.state, (given.uid, given.gid))
    except InstallError as failed:
        sys.stderr.write(f"towpath install: {failed}\n")
        return 1
    sys.stdout.write(f"towpath install: {given.cni_bin} and {given.conflist} are in place\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
