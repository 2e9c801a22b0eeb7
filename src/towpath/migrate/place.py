"""Where things are on a node, and what stands there: files of the runtime, of host-local and of the agent."""

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from towpath.install.node import write
from towpath.migrate import conflist, multus
from towpath.migrate.conflist import SAVED, CanalConf, NotCanal
from towpath.migrate.multus import MultusConf
from towpath.migrate.plan import OUR_PLUGIN, TOWPATH_CONFLIST
from towpath.migrate.pods import Identity
from towpath.model.attachment import PodRef
from towpath.multinet.journal import FILE

STORE = "leases.db"
_STORE_FILES = tuple(f"{name}{end}" for name in (STORE, FILE) for end in ("", "-wal", "-shm"))


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Folders as this process sees them. ``owner`` is the agent's uid and gid, 0 for this process' own."""

    cni_conf: Path = Path("/etc/cni/net.d")
    cni_bin: Path = Path("/opt/cni/bin")
    cni_state: Path = Path("/var/lib/cni")
    state_dir: Path = Path("/var/lib/towpath")
    owner: tuple[int, int] = (0, 0)

    @property
    def store(self) -> Path:
        """The agent's lease store."""
        return self.state_dir / STORE

    def leases_of(self, conf: CanalConf) -> Path:
        """host-local's folder of Canal's network."""
        return Path(conf.data_dir) / conf.network

    # CNI configuration.

    def in_force(self) -> str:
        """The file the runtime loads, empty for none."""
        try:
            return conflist.in_force([entry.name for entry in self.cni_conf.iterdir()])
        except OSError:
            return ""

    def canal_conf(self) -> CanalConf:
        """Canal's conflist: in force, behind another one, or put aside by a takeover. Raises NotCanal."""
        problem = NotCanal(f"there is no CNI configuration in {self.cni_conf}")
        names = [entry.name for entry in self.cni_conf.iterdir()] if self.cni_conf.is_dir() else []
        # One that is there is newer than one put aside: Canal's installer has written it since.
        for name in sorted(names, key=lambda name: (name.endswith(SAVED), name)):
            plain = name.removesuffix(SAVED)
            if plain == TOWPATH_CONFLIST or not conflist.in_force([plain]):
                continue
            try:
                return conflist.parse(plain, (self.cni_conf / name).read_text())
            except NotCanal as error:
                problem = error
            except (OSError, UnicodeDecodeError) as error:
                problem = NotCanal(f"{self.cni_conf / name}: {error}")
        raise problem

    def switch(self, on: str, off: str, text: str) -> None:
        """Put ``on`` in force and ``off`` aside. Renames only, so that no moment is without a configuration.

        Raises OSError.
        """
        wanted = self.cni_conf / on
        if not wanted.exists():
            saved = wanted.with_name(on + SAVED)
            if saved.exists():
                saved.replace(wanted)
            else:
                write(wanted, text.encode(), 0o644)
        with contextlib.suppress(FileNotFoundError):
            (self.cni_conf / off).replace(self.cni_conf / (off + SAVED))
        # What a later handback or takeover would take for newer than the file itself.
        with contextlib.suppress(FileNotFoundError):
            (self.cni_conf / (on + SAVED)).unlink()

    def multus_conf(self) -> MultusConf | None:
        """Multus's configuration: in the folder, or put aside by a takeover."""
        names = [entry.name for entry in self.cni_conf.iterdir()] if self.cni_conf.is_dir() else []
        for name in sorted(names, key=lambda name: (name.endswith(SAVED), name)):
            plain = name.removesuffix(SAVED)
            if conflist.in_force([plain]):
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    found = multus.parse(plain, (self.cni_conf / name).read_text())
                    if found is not None:
                        return found
        return None

    def put_aside(self, name: str) -> None:
        """A configuration that has come back; an older one that was put aside is the one to keep."""
        file = self.cni_conf / name
        if file.exists() and file.with_name(name + SAVED).exists():
            file.unlink()
        elif file.exists():
            file.replace(file.with_name(name + SAVED))

    def restore(self, name: str, text: str) -> None:
        """Put a configuration back, if it is not there. Raises OSError."""
        file = self.cni_conf / name
        if not file.exists():
            write(file, text.encode(), 0o600)
        file.with_name(name + SAVED).unlink(missing_ok=True)

    def installed(self) -> bool:
        """Whether Towpath's CNI program is there, and knows its socket."""
        program = self.cni_bin / OUR_PLUGIN
        return os.access(program, os.X_OK)

    def identities(self, network: str) -> dict[str, Identity]:
        """Whose containers are, from the files that libcni keeps of the runtime's and of Multus's calls."""
        found: dict[str, Identity] = {}
        between = self.multus_conf()
        folders = [(self.cni_state / "results", network)]
        if between is not None:
            folders += [(self.cni_state / "results", between.network)]
            folders += [(Path(between.cni_dir) / "results", network)]
        for file in (file for folder, name in folders for file in folder.glob(f"{name}-*")):
            with contextlib.suppress(OSError):
                told = conflist.identity(file.read_bytes())
                if told is None:
                    continue
                container, args, netns = told
                namespace, name = args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", "")
                if namespace and name:
                    pod = PodRef(namespace=namespace, name=name, uid=args.get("K8S_POD_UID", ""))
                    found[container] = Identity(pod=pod, netns=netns)
        return found

    # The agent's files.

    def give_store(self) -> None:
        """Make lease store and journal the agent's own. Raises OSError."""
        uid, gid = self.owner
        for name in _STORE_FILES:
            if uid and (path := self.state_dir / name).exists():
                os.chown(path, uid, gid)

    def retire_store(self) -> None:
        """Move lease store and journal aside. Raises OSError."""
        for name in reversed(_STORE_FILES):
            with contextlib.suppress(FileNotFoundError):
                (self.state_dir / name).replace(self.state_dir / f"{name}.handed-back")

    def retire_leases(self, conf: CanalConf) -> None:
        """Move host-local's folder aside. Raises OSError."""
        self.retire(self.leases_of(conf))

    def retire(self, folder: Path) -> None:
        """Move a folder aside; a former one makes way. Raises OSError."""
        if folder.exists():
            saved = folder.with_name(folder.name + SAVED)
            if saved.exists():
                shutil.rmtree(saved)
            folder.replace(saved)
