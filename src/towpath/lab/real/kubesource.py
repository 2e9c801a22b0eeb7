"""Builds the Kubernetes binaries from Debian 12's source package, which vendors all its dependencies.

The machine's apt is only used as a program: sources, lists and cache are files of the build's own, so the
machine needs no ``deb-src`` entry and none is left behind. The build runs in a process namespace: when this
process ends, however, so do make and every compiler. Until the result is complete and renamed into the cache
nothing looks like it, and the next build clears what an interrupted one left.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from towpath.lab import namespaces
from towpath.lab.real.binaries import PROGRAMS, version_of
from towpath.lab.rundir import LabError

MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NEEDED_BYTES = 8 << 30

# Program: Debian package. dpkg-source wants patch and xz, make's own scripts want rsync.
_TOOLS = {
    "apt-get": "apt",
    "dpkg-source": "dpkg-dev",
    "go": "golang-go",
    "make": "make",
    "rsync": "rsync",
    "unshare": "util-linux",
}
_PACKAGE, _REFLECTION = "kubernetes", "golang-github-modern-go-reflect2"
_VENDORED_REFLECTION = "vendor/github.com/modern-go/reflect2"
_PROGRESS_SECONDS = 5.0
# A process namespace around the command: its death takes all of it along.
_CONFINED = ("unshare", "--pid", "--fork", "--kill-child=KILL")


def build(cache: Path, progress: Callable[[str], None]) -> Path:
    """Build into ``cache``/VERSION/bin and return that folder; the log stays in ``cache``/build.log.

    Takes minutes. Raises LabError: tools missing, no space, no apt source, a failed build.
    """
    _require_tools()
    workspace = cache / ".building"
    shutil.rmtree(workspace, ignore_errors=True)
    _require_space(cache)
    log = cache / "build.log"
    try:
        workspace.mkdir()
        with log.open("wb"):
            pass
        work = Workspace(workspace, log, progress)
        source = work.source()
        work.compile(source)
        return _publish(source / "_output" / "local" / "bin", cache)
    except OSError as failed:
        raise LabError(f"Kubernetes could not be built: {failed}", f"the log is {log}", "TP9023") from failed
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _replace_reflection(fixed: Path, source: Path) -> None:
    """Put reflect2 1.0.2 in the place of 1.0.1.

    Kubernetes 1.20 vendors 1.0.1, which calls into Go's runtime as it was before Go 1.18: built with Debian
    12's Go 1.19 the API server corrupts its memory while it encodes maps, and crashes on the first custom
    resource. Debian's package of reflect2 is 1.0.2, which knows both runtimes.
    """
    vendored = source / _VENDORED_REFLECTION
    for old in (*vendored.glob("*.go"), *vendored.glob("*.s")):
        old.unlink()
    for new in (*fixed.glob("*.go"), *fixed.glob("*.s")):
        if not new.name.endswith("_test.go"):
            shutil.copy2(new, vendored)


def _require_tools() -> None:
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise LabError(
            "building Kubernetes needs tools this machine lacks",
            f"apt install {' '.join(missing)}, or name a folder of binaries with TOWPATH_KUBE_BIN",
            "TP9020",
        )


def _require_space(cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < NEEDED_BYTES:
        raise LabError(
            f"building Kubernetes needs {NEEDED_BYTES >> 30} GiB in {cache}, where {free / (1 << 30):.1f} "
            "GiB are free",
            "make room, or set XDG_CACHE_HOME to a folder on a larger disk",
            "TP9021",
        )


class Workspace:
    """The folder a build works in, its log, and who hears of its progress."""

    def __init__(self, folder: Path, log: Path, progress: Callable[[str], None]) -> None:
        self._folder, self._log, self._progress = folder, log, progress

    def source(self) -> Path:
        """Fetch and unpack the newest source package of Debian 12; its folder. Raises LabError."""
        apt = ["apt-get", "-c", str(self._apt_configuration())]
        no_source = (
            f"the source package kubernetes of Debian 12 could not be fetched from {MIRROR}",
            "TP9022",
        )
        self._run("Kubernetes: reading Debian's list of sources", [*apt, "update"], *no_source)
        for package in (_PACKAGE, _REFLECTION):
            fetch = [*apt, "--download-only", "source", package]
            self._run("Kubernetes: fetching its source", fetch, *no_source)
            described = list(self._folder.glob(f"{package}_*.dsc"))
            if len(described) != 1:
                raise LabError(no_source[0], f"the log is {self._log}", no_source[1])
            unpack = ["dpkg-source", "--extract", described[0].name, package]
            self._run("Kubernetes: unpacking its source", unpack, "dpkg-source could not unpack it", "TP9023")
        source = self._folder / _PACKAGE
        _replace_reflection(self._folder / _REFLECTION, source)
        return source

    def _apt_configuration(self) -> Path:
        """An apt that knows one source and keeps its files here; the machine's proxies still apply."""
        own = self._folder / "apt"
        for name in ("lists/partial", "cache/archives/partial", "empty"):
            (own / name).mkdir(parents=True)
        (own / "sources.list").write_text(f"deb-src [signed-by={KEYRING}] {MIRROR} bookworm main\n")
        configuration = own / "apt.conf"
        configuration.write_text(
            f'Dir::Etc::sourcelist "{own}/sources.list";\n'
            f'Dir::Etc::sourceparts "{own}/empty";\n'
            f'Dir::State::lists "{own}/lists";\n'
            f'Dir::Cache "{own}/cache";\n'
            'APT::Sandbox::User "root";\n'  # the folder may be closed to _apt
            'APT::Update::Error-Mode "any";\n'  # else a source that does not answer is only a warning
            # The machine's hooks are about the machine's lists.
            "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear DPkg;\n"
        )
        return configuration

    def compile(self, source: Path) -> None:
        """``make`` the programs: its own target, since the API server needs code it generates."""
        gopath = source / ".go"
        (gopath / "src" / "k8s.io").mkdir(parents=True)
        (gopath / "src" / "k8s.io" / "kubernetes").symlink_to("../../..")
        environment = {
            "PATH": f"/usr/lib/go/bin:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "GOPATH": str(gopath),
            "GOCACHE": str(self._folder / "gocache"),
            "GOPROXY": "off",
            "CGO_ENABLED": "0",
            "LC_ALL": "C.UTF-8",
        }
        what = " ".join(f"cmd/{name}" for name in PROGRAMS)
        self._run(
            "Kubernetes: building, which takes about five minutes",
            ["make", f"WHAT={what}"],
            "the build of Kubernetes failed",
            "TP9023",
            cwd=source,
            environment=environment,
        )

    def _run(
        self,
        doing: str,
        argv: list[str],
        failure: str,
        code: str,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Run one step to its end, in a process namespace that ends with this process."""
        began = time.monotonic()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*_CONFINED, *argv],
                cwd=cwd or self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_enter_own_user,
            )
            try:
                while True:
                    self._progress(_elapsed(doing, time.monotonic() - began))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        status = process.wait(_PROGRESS_SECONDS)
                        break
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status != 0:
            raise LabError(f"{failure}: {_last_words(self._log)}", f"the log is {self._log}", code)


def _elapsed(doing: str, seconds: float) -> str:
    return doing if seconds < _PROGRESS_SECONDS else f"{doing} ({seconds // 60:.0f}:{seconds % 60:02.0f})"


def _enter_own_user() -> None:
    """In the child: what an ordinary user needs to make namespaces, then the death signal (which a change of
    capabilities would clear)."""
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        namespaces.map_current_user(uid, gid)
    namespaces.die_with_parent()


def _last_words(log: Path) -> str:
    """The most telling of the log's last lines: apt's and make's own complaint."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E:", "Err:")) or "rror" in line or "!!!" in line]
    return (telling or lines or ["it said nothing"])[-1][:300]


def _publish(built: Path, cache: Path) -> Path:
    """Move the programs into the cache, complete or not at all."""
    folders = [built, *(p for p in built.glob("*/*") if p.is_dir())]  # make may sort by platform
    folder = next((f for f in folders if all((f / name).is_file() for name in PROGRAMS)), None)
    if folder is None:
        raise LabError(
            "the build of Kubernetes left no programs", f"look into {cache / 'build.log'}", "TP9023"
        )
    version = version_of(folder / "kube-apiserver")
    fresh = cache / ".fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "bin").mkdir(parents=True)
    for name in PROGRAMS:
        shutil.move(folder / name, fresh / "bin" / name)
    target = cache / str(version)
    shutil.rmtree(target, ignore_errors=True)  # incomplete, or it would have been used
    fresh.rename(target)
    return target / "bin"
