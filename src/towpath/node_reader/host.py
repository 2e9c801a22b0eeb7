"""The host's file system and /proc, wherever they are mounted: modules, programs, services, ports, files."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from towpath.inventory.node_report import Listener
from towpath.node_reader.counters import Counters, counters

MODULES = (
    "vxlan", "br_netfilter", "overlay", "nf_tables", "nft_compat", "nft_chain_nat", "nft_masq",
    "nf_conntrack", "ip_tables", "ip6_tables", "iptable_nat", "iptable_filter", "xt_comment", "xt_mark",
    "xt_MASQUERADE", "xt_conntrack", "xt_multiport", "xt_set", "ip_set", "ip_set_hash_ip", "ip_set_hash_net",
    "nf_nat",
)  # fmt: skip
_PROGRAMS = ("iptables", "ip6tables", "ipset", "nft")
_SERVICES = ("firewalld", "NetworkManager", "nm-cloud-setup")
_NETWORK_PROGRAMS = ("flanneld", "calico-node", "multus-daemon")
_IN_IMAGES = ("opt/cni/bin", "usr/src/multus-cni/bin")
_LISTEN, _UNCONNECTED = "0A", "07"
_LARGEST_FILE = 512 << 20


class Host:
    """``root`` is where the host's / is, ``proc`` a /proc of the host's processes."""

    def __init__(self, root: Path, proc: Path = Path("/proc")) -> None:
        self.root, self._proc = root, proc

    def path(self, name: str) -> Path:
        """A path of the host's."""
        return self.root / name.lstrip("/")

    # The system.

    def release(self) -> dict[str, str]:
        """os-release: ID, VERSION_ID, PRETTY_NAME."""
        found = {}
        for name in ("etc/os-release", "usr/lib/os-release"):
            with contextlib.suppress(OSError):
                for line in (self.root / name).read_text(errors="replace").splitlines():
                    key, _, value = line.partition("=")
                    if key in ("ID", "VERSION_ID", "PRETTY_NAME"):
                        found[key] = value.strip().strip('"')
                break
        return found

    def modules(self, kernel: str) -> dict[str, str]:
        """Each of ``MODULES``: loaded, builtin, available or missing; nothing where no list can be read."""
        loaded = self._loaded()
        folder = self.path(f"/lib/modules/{kernel}")
        if not (folder / "modules.dep").exists() and not (folder / "modules.builtin").exists():
            return {name: "loaded" for name in MODULES if name in loaded}
        builtin = _module_names(folder / "modules.builtin")
        there = _module_names(folder / "modules.dep")

        def state(name: str) -> str:
            if name in loaded:
                return "loaded"
            return "builtin" if name in builtin else "available" if name in there else "missing"

        return {name: state(name) for name in MODULES}

    def _loaded(self) -> set[str]:
        with contextlib.suppress(OSError):
            return {line.split()[0] for line in (self._proc / "modules").read_text().splitlines() if line}
        return set()

    def services(self) -> tuple[str, ...]:
        """Which of those that get in the way run: their control group exists while they do."""
        groups = ("sys/fs/cgroup/system.slice", "sys/fs/cgroup/systemd/system.slice")
        wants = self.path("/etc/systemd/system/timers.target.wants/nm-cloud-setup.timer")
        running = {
            name
            for name in _SERVICES
            if any((self.root / group / f"{name}.service").is_dir() for group in groups)
        }
        return tuple(sorted(running | ({"nm-cloud-setup"} if wants.is_symlink() else set())))

    def unmanaged(self) -> tuple[str, ...]:
        """Interfaces that NetworkManager is told to leave alone."""
        found: list[str] = []
        for folder in (
            "etc/NetworkManager/conf.d",
            "usr/lib/NetworkManager/conf.d",
            "run/NetworkManager/conf.d",
        ):
            for file in sorted((self.root / folder).glob("*.conf")):
                with contextlib.suppress(OSError):
                    for line in re.findall(r"^unmanaged-devices\s*\+?=(.*)$", file.read_text(), re.MULTILINE):
                        found += [word.strip() for word in re.split(r"[;,]", line) if word.strip()]
        return tuple(found)

    def listeners(self) -> tuple[Listener, ...]:
        """Who listens in the network namespace of this process."""
        inodes = self._inodes()
        found = set()
        for table, state in (
            ("tcp", _LISTEN),
            ("tcp6", _LISTEN),
            ("udp", _UNCONNECTED),
            ("udp6", _UNCONNECTED),
        ):
            with contextlib.suppress(OSError):
                lines = (self._proc / "self/net" / table).read_text().splitlines()[1:]
                for words in map(str.split, lines):
                    if words[3] == state:
                        port = int(words[1].rpartition(":")[2], 16)
                        found.add(Listener(table[:3], port, inodes.get(words[9], "")))
        return tuple(sorted(found))

    def _inodes(self) -> dict[str, str]:
        """Inode of a socket to the program that has it."""
        found: dict[str, str] = {}
        for process in self._processes():
            with contextlib.suppress(OSError):
                name = (process / "comm").read_text().strip()
                for entry in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        target = str(entry.readlink())
                        if target.startswith("socket:["):
                            found[target[8:-1]] = name
        return found

    def counters(self) -> Counters:
        """Of the node's traffic, and its pods'. Raises OSError."""
        return counters(self._proc, self._processes())

    def _processes(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from (entry for entry in self._proc.iterdir() if entry.name.isdigit())

    def free(self, folders: Iterable[str]) -> dict[str, int]:
        """MiB that are left on the file system of each folder that exists."""
        found = {}
        for name in folders:
            with contextlib.suppress(OSError):
                found[name] = shutil.disk_usage(self.path(name)).free >> 20
        return found

    # Files.

    def hashes(self, *folders: str) -> dict[str, str]:
        """SHA-256 of every plain file of these folders, by the host's path."""
        found = {}
        for folder in folders:
            with contextlib.suppress(OSError):
                for file in sorted(self.path(folder).iterdir()):
                    with contextlib.suppress(OSError):
                        if file.is_file() and file.stat().st_size < _LARGEST_FILE:
                            with file.open("rb") as opened:
                                found[f"{folder}/{file.name}"] = hashlib.file_digest(
                                    opened, "sha256"
                                ).hexdigest()
        return found

    def image_files(self) -> dict[str, str]:
        """SHA-256 of the CNI programs in the network's running containers, by name."""
        found: dict[str, str] = {}
        for root in self._containers():
            for folder in _IN_IMAGES:
                within = Host(root).hashes(f"/{folder}")
                found |= {Path(name).name: digest for name, digest in within.items()}
        return found

    def texts(self, folder: str) -> dict[str, str]:
        """Small files of a folder, by name."""
        found = {}
        with contextlib.suppress(OSError):
            for file in sorted(self.path(folder).iterdir()):
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    if file.is_file() and file.stat().st_size < 1 << 20:
                        found[file.name] = file.read_text()
        return found

    # Programs.

    def programs(self) -> dict[str, str]:
        """What the firewall's programs say of their version, where the network would run them."""
        found = {}
        for name in _PROGRAMS:
            said = self.run(name, "--version")
            if said:
                found[name] = said.splitlines()[0].strip()
        return found

    def sets_problem(self) -> str:
        """What ipset complains of when it lists the kernel's sets; empty if it can.

        The first one that is found: that of the host does not help a network that brings its own.
        """
        for root, path in self._found("ipset"):
            done = _ask(root, path, "list", "-t")
            return " ".join(done.stderr.split()) if done.returncode != 0 else ""
        return ""

    def run(self, program: str, *arguments: str) -> str | None:
        """What it prints; None where it is nowhere or fails. It is looked for in the network's own
        container first (RKE2 brings its own iptables), then on the host, then beside this process."""
        for root, path in self._found(program):
            done = _ask(root, path, *arguments)
            if done.returncode == 0:
                return done.stdout
        return None

    def _found(self, program: str) -> Iterator[tuple[Path, str]]:
        """Roots that have it, and where."""
        for root in self._roots():
            path = _which(program, root)
            if path is not None:
                yield root, path

    def _roots(self) -> Iterator[Path]:
        yield from (*self._containers(), self.root, Path("/"))

    def _containers(self) -> Iterator[Path]:
        """Roots of the network's containers, as far as this process may look into them."""
        for process in self._processes():
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().strip() in _NETWORK_PROGRAMS:
                    yield process / "root"


def _which(program: str, root: Path) -> str | None:
    for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"):
        with contextlib.suppress(OSError):
            if os.path.lexists(root / folder.lstrip("/") / program):
                return f"{folder}/{program}"
    return None


def _ask(root: Path, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [path, *arguments], capture_output=True, text=True, check=False, timeout=60, preexec_fn=_into(root)
    )


def _into(root: Path) -> Callable[[], None] | None:
    if root == Path("/"):
        return None

    def enter() -> None:
        os.chroot(root)
        os.chdir("/")

    return enter


def _module_names(file: Path) -> set[str]:
    """Of modules.dep or modules.builtin: names with underscores, without folder and suffix."""
    with contextlib.suppress(OSError):
        lines = file.read_text(errors="replace").splitlines()
        return {Path(line.partition(":")[0]).name.partition(".ko")[0].replace("-", "_") for line in lines}
    return set()
