"""The node's firewall as its own programs show it: iptables in both backends, nftables' tables, IP sets."""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from towpath.kernel import nft_removal
from towpath.kernel.libnftables import HANDLES, STATELESS, TERSE, NftContext, NftError
from towpath.kernel.nft_socket import NftSocket, Refused
from towpath.kernel.port import KernelRefused
from towpath.migrate.iptables import Removal, Table, parse_save, restore_text
from towpath.migrate.ownership import FELIX_SETS, NFT_TABLES, PORTMAP_NFT
from towpath.migrate.steps import Backend, Family

BACKENDS: tuple[Backend, Backend] = ("nft", "legacy")
FAMILIES: tuple[Family, Family] = (4, 6)
_LEGACY_TABLES = {4: "ip_tables_names", 6: "ip6_tables_names"}
_IPTABLES = ("filter", "nat", "mangle", "raw")
_NAMED = re.compile(r"^table (\S+) (\S+)", re.MULTILINE)
_CHAIN = re.compile(r"^\tchain (\S+) \{", re.MULTILINE)
_CANAL_CHAIN = re.compile(r"^\tchain (cali-|FLANNEL-|CNI-(DN|SN|HOSTPORT)-)", re.MULTILINE)
_HANDLE = re.compile(r'comment "(?P<id>[^"]+)".* # handle (?P<handle>\d+)$')
_NFT_FAMILIES = ("ip", "ip6")


class ToolFailed(Exception):
    """A program of the node's did not do it; the text has its words."""


class Firewall:
    """The namespace the calling thread is in. Methods raise ToolFailed and KernelRefused."""

    def __init__(self) -> None:
        self._nft = NftContext()

    def close(self) -> None:
        """Free the context."""
        self._nft.close()

    # iptables.

    def tables(self, backend: Backend, family: Family) -> dict[str, Table]:
        """What iptables-save shows of one backend and family; empty where there is nothing of it."""
        if not self.in_use(backend, family):
            return {}
        return parse_save(self._run(f"{_program(backend, family)}-save"))

    def in_use(self, backend: Backend, family: Family) -> bool:
        """Whether there are tables of this kind, without making any."""
        if backend == "legacy":
            names = Path("/proc/thread-self/net") / _LEGACY_TABLES[family]
            try:
                return bool(names.read_text().split())
            except OSError:
                return False
        wanted = "ip" if family == 4 else "ip6"
        return any(of == wanted and name in _IPTABLES for of, name in self.table_names())

    def available(self, backend: Backend, family: Family) -> bool:
        """Whether the programs to change it are installed."""
        program = _program(backend, family)
        return all(shutil.which(f"{program}-{verb}") for verb in ("save", "restore"))

    def remove(self, backend: Backend, family: Family, removals: tuple[Removal, ...]) -> None:
        """Each table's removal at once."""
        self._run(
            f"{_program(backend, family)}-restore", "--noflush", "-w", "10", given=restore_text(removals)
        )

    # nftables.

    def chains(self) -> str:
        """All tables and chains, without rules."""
        return self._list("list", "chains")

    def nft_tables(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Chains of the tables that are Canal's by name."""
        found = {}
        for key in NFT_TABLES:
            if self._has(*key):
                found[key] = tuple(_CHAIN.findall(self._list("list", "table", *key)))
        return found

    def portmap_tables(self) -> dict[str, str]:
        """portmap's own tables as listed with handles, by family."""
        return {
            f: self._list("list", "table", f, PORTMAP_NFT) for f in _NFT_FAMILIES if self._has(f, PORTMAP_NFT)
        }

    def remove_nft(self, containers: frozenset[str]) -> None:
        """Canal's tables, and portmap's rules for these containers.

        A table of portmap's that serves nobody afterwards goes as a whole.
        """
        self._delete(*self.nft_tables())
        commands: list[str] = []
        for family, listed in self.portmap_tables().items():
            commands += portmap_commands(family, listed, containers)
        if commands:
            self._apply(*commands)

    def delete_table(self, name: str) -> None:
        """The whole table ``inet NAME``; gone already is success."""
        if self._has("inet", name):
            self._delete(("inet", name))

    def _delete(self, *tables: tuple[str, str]) -> None:
        if not tables:
            return
        try:
            with contextlib.closing(NftSocket()) as socket:
                nft_removal.remove(socket, *tables)
        except Refused as refused:
            op = f"delete {', '.join(f'table {family} {name}' for family, name in tables)}"
            raise KernelRefused(op, refused.errno, os.strerror(refused.errno)) from refused

    def table_names(self) -> tuple[tuple[str, str], ...]:
        """Family and name of every nftables table."""
        return tuple(_NAMED.findall(self._list("list", "tables")))

    # IP sets.

    def sets_available(self) -> bool:
        """Whether IP sets can be seen and removed."""
        return shutil.which("ipset") is not None

    def sets(self) -> list[str]:
        """Felix's IP sets; none where the program is missing."""
        if not self.sets_available():
            return []
        return [name for name in self._run("ipset", "list", "-n").split() if FELIX_SETS.fullmatch(name)]

    def destroy_sets(self) -> None:
        """Destroy Felix's IP sets: the outer ones first, as a list refers to its members."""
        for name in sorted(self.sets(), reverse=True):
            self._run("ipset", "destroy", name)

    # Below.

    def iptables_without_program(self) -> bool:
        """Whether chains of Canal's are in nftables that only iptables-nft could have made."""
        return _CANAL_CHAIN.search(self.chains()) is not None

    def _has(self, family: str, name: str) -> bool:
        return (family, name) in self.table_names()

    def _list(self, *words: str) -> str:
        try:
            return self._nft.run(" ".join(words), flags=STATELESS | TERSE | HANDLES).decode()
        except NftError as error:
            raise KernelRefused(" ".join(words), error.errno, error.reason) from error

    def _apply(self, *commands: str) -> None:
        try:
            self._nft.run(*commands)
        except NftError as error:
            raise KernelRefused(error.command or commands[0], error.errno, error.reason) from error

    def _run(self, *command: str, given: str | None = None) -> str:
        program = shutil.which(command[0])
        if program is None:
            raise ToolFailed(f"{command[0]} is not installed")
        done = subprocess.run(
            [program, *command[1:]], input=given, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise ToolFailed(f"{' '.join(command)}: {' '.join(done.stderr.split()) or done.returncode}")
        return done.stdout


def portmap_commands(family: str, listed: str, containers: frozenset[str]) -> list[str]:
    """What removes the rules of ``containers`` from a listed table ``cni_hostport``."""
    chain, mine, others = "", [], 0
    for line in listed.splitlines():
        if (named := _CHAIN.match(line)) is not None:
            chain = named[1]
        elif (rule := _HANDLE.search(line)) is not None and chain:
            if rule["id"] in containers:
                mine.append(f"delete rule {family} {PORTMAP_NFT} {chain} handle {rule['handle']}")
            else:
                others += 1
    return mine if others or not mine else [f"delete table {family} {PORTMAP_NFT}"]


def _program(backend: Backend, family: Family) -> str:
    return f"{'ip6tables' if family == 6 else 'iptables'}-{backend}"
