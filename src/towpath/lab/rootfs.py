"""What the lab's processes see as their file system: the machine's, read-only, under writable shadows.

Commands of pods come from the machine (/usr, /home, a virtual environment under /tmp…), yet nothing in the
lab may change the machine, and each node needs its own /etc/cni, /opt/cni, /var/lib/cni and /run.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from towpath.lab import namespaces

STATE = Path("/lab")
INSTALLING = STATE / "installing"  # there when the launcher lets the network be installed
HOST = "/.host"

# Directories that are ours alone, in the lab's root and (bound from its disk) on each node.
NODE_PATHS = {
    "/etc/cni": "etc-cni",
    "/etc/containerd": "etc-containerd",
    "/etc/kubernetes": "etc-kubernetes",
    "/etc/towpath": "etc-towpath",
    "/opt/cni": "opt-cni",
    "/var/lib/cni": "var-lib-cni",
    "/var/lib/containerd": "var-lib-containerd",
    "/var/lib/towpath": "var-lib-towpath",
    "/var/lib/kubelet": "var-lib-kubelet",
    "/var/log": "var-log",
}
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108
_SHADOWED = ("/etc", "/opt", "/var", "/var/lib", *_TEMPORARY)
_FRESH = ("/proc", "/dev", "/run", "/sys", "/var/run", "/lost+found", *NODE_PATHS)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as the container runtime mounts it."""

    source: str
    target: str
    read_only: bool = False


def build(mount_point: str) -> None:
    """Make the lab's root on a tmpfs at ``mount_point`` (any existing folder) and move into it."""
    namespaces.mount("towpath-lab", mount_point, "tmpfs", namespaces.MS_NOSUID, "mode=755")
    new = Path(mount_point)
    host = new / HOST.lstrip("/")
    host.mkdir()
    namespaces.bind("/", str(host))
    with suppress(OSError):
        namespaces.umount(str(host) + mount_point)
    namespaces.make_read_only(str(host))
    for entry in sorted(os.scandir("/"), key=lambda e: e.name):
        target = new / entry.name
        if entry.is_symlink():
            target.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir() and entry.path not in (*_SHADOWED, *_FRESH):
            target.mkdir()
            namespaces.bind(entry.path, str(target))
            namespaces.make_read_only(str(target))
    for path in _SHADOWED:
        _shadow(new, path)
    _fresh(new)
    namespaces.pivot_root(mount_point)


def _shadow(new: Path, path: str) -> None:
    """A writable folder whose entries lead to the machine's."""
    folder = new / path.lstrip("/")
    folder.mkdir(mode=0o1777 if path in _TEMPORARY else 0o755)
    try:
        entries = os.listdir(path)  # noqa: PTH208
    except OSError:
        return
    for name in entries:
        full = f"{path}/{name}"
        if full not in (*_SHADOWED, *_FRESH):
            (folder / name).symlink_to(HOST + full)


def _fresh(new: Path) -> None:
    for path in NODE_PATHS:
        (new / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for path in ("proc", "run", "sys", "dev", "lab"):
        (new / path).mkdir()
    (new / "var/run").symlink_to("/run")
    mount_proc(str(new / "proc"))
    namespaces.bind("/sys", str(new / "sys"))
    namespaces.make_read_only(str(new / "sys"))
    _devices(new / "dev")


def mount_proc(target: str) -> None:
    """A /proc of this PID namespace; where the kernel refuses (a container's masked /proc), the old one."""
    try:
        namespaces.mount("proc", target, "proc")
    except OSError:
        if target != "/proc":
            namespaces.bind("/proc", target)


def _devices(dev: Path) -> None:
    for name in _DEVICES:
        source = Path("/dev", name)
        if source.exists():
            (dev / name).parent.mkdir(exist_ok=True)
            (dev / name).touch()
            namespaces.bind(str(source), str(dev / name))
    for folder in ("pts", "shm"):
        (dev / folder).mkdir(mode=0o1777)
    namespaces.mount("devpts", str(dev / "pts"), "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
    (dev / "ptmx").symlink_to("pts/ptmx")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (dev / name).symlink_to(f"/proc/self/fd{target}")


def enter_node(disk: Path) -> None:
    """In a node's fresh mount namespace: its disk on the usual paths, empty /run, own /proc and /sys."""
    for path, name in NODE_PATHS.items():
        source = disk / name
        source.mkdir(parents=True, exist_ok=True)
        namespaces.bind(str(source), path)
    namespaces.mount("tmpfs", "/run", "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, "mode=755")
    mount_proc("/proc")
    _mount_sysfs()


def _mount_sysfs() -> None:
    # /sys/class/net belongs to the namespace sysfs was mounted in; where refused, the machine's stays.
    with suppress(OSError):
        namespaces.mount("sysfs", "/sys", "sysfs", namespaces.MS_RDONLY)


def enter_container(mounts: list[Mount], *, read_only: bool = False) -> None:
    """In a container's fresh mount namespace: own /proc and /sys, volumes, perhaps a read-only root.

    Raises OSError.
    """
    mount_proc("/proc")
    _mount_sysfs()
    for wanted in mounts:
        _mount_point(Path(wanted.source), Path(wanted.target))
        namespaces.bind(wanted.source, wanted.target)
    if read_only:
        namespaces.make_read_only("/")
        for path in ("/proc", "/dev/pts"):
            namespaces.make_writable(path)
    for wanted in mounts:
        if wanted.read_only:
            namespaces.make_read_only(wanted.target)
        elif read_only:
            namespaces.make_writable(wanted.target)


def image_root(image: str) -> Path:
    """Where a lab has the files of ``image``, if it was given any."""
    return Path("/lab/images", quote(image, safe=""))


def keep_image(image: str, folder: str) -> None:
    """Containers of ``image`` run from ``folder`` of the machine from now on. Raises OSError."""
    link = image_root(image)
    link.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        link.symlink_to(f"{HOST}{folder}")


def enter_image(root: Path, mounts: list[Mount]) -> None:
    """Go from a container's own mounts into the files of its image, and take the volumes along. Raises
    OSError: a folder for one of them is missing.
    """
    for path in dict.fromkeys(("/proc", "/sys", "/dev", "/run", *(wanted.target for wanted in mounts))):
        namespaces.bind(path, f"{root}{path}")
    os.chroot(root)


def _mount_point(source: Path, target: Path) -> None:
    """Make ``target`` where it is missing, as ``source`` is; on the machine's own folders it must exist."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(source.stat().st_mode):
        target.mkdir()
    else:
        target.touch()


def set_boot_id(boot_id: str) -> None:
    """This boot's identity, in /run and, where the kernel lets us, on the path every program reads."""
    path = Path("/run/boot-id")
    path.write_text(boot_id + "\n")
    with suppress(OSError):
        namespaces.bind(str(path), "/proc/sys/kernel/random/boot_id")
