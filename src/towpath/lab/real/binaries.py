"""Where the Kubernetes binaries come from: ``TOWPATH_KUBE_BIN``, the cache, or Debian's source package.

    binaries = find_binaries(progress)          # KubeBinaries; builds for minutes where the cache is empty
    binaries.apiserver, .controller_manager, .scheduler, .kubelet, .proxy, .kubectl      # paths
    binaries.etcd, .containerd, .containerd_shim, .ctr, .runc   # from the same folder, else the machine's
    binaries.version                            # Version(1, 20, 2), compares as a tuple
    binaries.supports(binaries.kubelet, "--fail-cgroup-v1")     # whether its --help lists a flag

The cache is ``$XDG_CACHE_HOME/towpath/kubernetes/VERSION/bin`` (``~/.cache`` where unset). Errors are
``LabError`` with a code of TP9020 to TP9024.
"""

import fcntl
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from towpath.lab.rundir import LabError

ENVIRONMENT = "TOWPATH_KUBE_BIN"
PROGRAMS = (
    "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
)  # fmt: skip

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {"etcd": "etcd-server", "ctr": "containerd", "containerd-shim-runc-v2": "containerd"}


class Version(NamedTuple):
    """A Kubernetes version."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def parse_version(text: str) -> Version:
    """The first version in ``text``, such as "Kubernetes v1.20.2". Raises ValueError."""
    found = _VERSION.search(text)
    if found is None:
        raise ValueError(f"no version in {text!r}")
    return Version(*(int(part or 0) for part in found.groups()))


class KubeBinaries(msgspec.Struct, frozen=True):
    """A folder with the six Kubernetes programs of one version; what else is needed beside them."""

    folder: Path
    version: Version

    @property
    def apiserver(self) -> Path:
        """kube-apiserver."""
        return self.folder / "kube-apiserver"

    @property
    def controller_manager(self) -> Path:
        """kube-controller-manager."""
        return self.folder / "kube-controller-manager"

    @property
    def scheduler(self) -> Path:
        """kube-scheduler."""
        return self.folder / "kube-scheduler"

    @property
    def kubelet(self) -> Path:
        """kubelet."""
        return self.folder / "kubelet"

    @property
    def proxy(self) -> Path:
        """kube-proxy."""
        return self.folder / "kube-proxy"

    @property
    def kubectl(self) -> Path:
        """kubectl."""
        return self.folder / "kubectl"

    @property
    def etcd(self) -> Path:
        """etcd. Raises LabError where it is neither in the folder nor installed."""
        return self.other("etcd")

    @property
    def containerd(self) -> Path:
        """containerd. Raises LabError like ``etcd``."""
        return self.other("containerd")

    @property
    def containerd_shim(self) -> Path:
        """containerd-shim-runc-v2. Raises LabError like ``etcd``."""
        return self.other("containerd-shim-runc-v2")

    @property
    def ctr(self) -> Path:
        """ctr. Raises LabError like ``etcd``."""
        return self.other("ctr")

    @property
    def runc(self) -> Path:
        """runc. Raises LabError like ``etcd``."""
        return self.other("runc")

    def other(self, name: str) -> Path:
        """A program that is not Kubernetes' own: from the folder, else the machine's. Raises LabError."""
        own = self.folder / name
        if os.access(own, os.X_OK):
            return own
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
        if found is None:
            package = _PACKAGES.get(name, name)
            raise LabError(f"{name} is not installed", f"apt install {package}", "TP9020")
        return Path(found)

    def supports(self, program: Path, flag: str) -> bool:
        """Whether ``program --help`` lists ``flag`` (with its dashes)."""
        return re.search(rf"(?m)(^|\s){re.escape(flag)}($|[\s=])", help_text(program)) is not None


@functools.cache
def help_text(program: Path) -> str:
    """What ``program --help`` prints, on either stream. Raises LabError when it cannot run."""
    return _run(program, "--help")


def find_binaries(progress: Callable[[str], None]) -> KubeBinaries:
    """The binaries to use; builds them where nobody has yet. ``progress`` gets a line now and then.

    Raises LabError: a folder that is not what it should be, or what ``kubesource.build`` raises.
    """
    named = os.environ.get(ENVIRONMENT, "")
    if named:
        return binaries_in(Path(named).resolve())
    cache = cache_folder()
    if cached := _newest_cached(cache):
        return cached
    from towpath.lab.real import kubesource

    with _only_one(cache, progress):
        if cached := _newest_cached(cache):  # somebody else's build has just ended
            return cached
        return binaries_in(kubesource.build(cache, progress))


def use_binaries(progress: Callable[[str], None]) -> KubeBinaries:
    """``find_binaries``, and this process' children find the same ones. Raises LabError."""
    found = find_binaries(progress)
    os.environ[ENVIRONMENT] = str(found.folder)
    return found


def cache_folder() -> Path:
    """The folder whose subfolders are versions; made when missing. Raises LabError."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "towpath" / "kubernetes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        raise LabError(
            f"no cache for the Kubernetes binaries: {refused}", "set XDG_CACHE_HOME", "TP9021"
        ) from refused
    return folder


def binaries_in(folder: Path) -> KubeBinaries:
    """The binaries of ``folder``. Raises LabError where one is missing, cannot run or is too old."""
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        raise LabError(
            f"{folder} lacks {', '.join(missing)}",
            f"{ENVIRONMENT} names a folder with {', '.join(PROGRAMS)} of one Kubernetes release",
            "TP9020",
        )
    version = version_of(folder / "kube-apiserver")
    if version < (1, 20):
        raise LabError(f"{folder} holds Kubernetes {version}; 1.20 is the oldest supported", code="TP9020")
    return KubeBinaries(folder, version)


def version_of(program: Path) -> Version:
    """What ``program --version`` says. Raises LabError when it cannot run or says nothing of the kind."""
    try:
        return parse_version(_run(program, "--version"))
    except ValueError as odd:
        raise LabError(f"{program} --version: {odd}", code="TP9020") from odd


def _run(program: Path, argument: str) -> str:
    try:
        done = subprocess.run([program, argument], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise LabError(f"{program} cannot run: {failed}", "is it for this machine?", "TP9020") from failed
    return done.stdout + done.stderr


def _newest_cached(cache: Path) -> KubeBinaries | None:
    found = [
        KubeBinaries(folder, parse_version(folder.parent.name))
        for folder in cache.glob("[1-9]*/bin")
        if all(os.access(folder / name, os.X_OK) for name in PROGRAMS)
    ]
    return max(found, key=lambda one: one.version, default=None)


@contextmanager
def _only_one(cache: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """One build at a time on this machine; the others wait for its end and use its result."""
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process builds Kubernetes; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
