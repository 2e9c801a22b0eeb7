"""Puts the stand-ins' rules into the kernel of the namespace this runs in, with iptables, ipset and nft."""

import subprocess
from collections.abc import Iterable, Sequence
from typing import Literal

from towpath.lab.canal import felix_rules, flannel_rules
from towpath.lab.canal.felix_rules import Endpoint

Backend = Literal["nft", "legacy", "nftables"]
"""How rules are made: iptables-nft, iptables-legacy, or nftables' own tables."""


def felix(backend: Backend, family: int, endpoints: Iterable[Endpoint]) -> None:
    """What Felix does about a change, and at start: everything of a family. Raises CalledProcessError."""
    pods = list(endpoints)
    if backend == "nftables":
        _run(["nft", "-f", "-"], felix_rules.nft_script(family, pods))
        return
    _run(["ipset", "restore", "-exist"], felix_rules.ipsets(family, pods))
    program = _program(backend, family)
    _run([f"{program}-restore", "--noflush", "-w"], felix_rules.restore(family, pods))
    _forget(program, family, pods)
    for table, chain, rule in felix_rules.hooks():
        _ensure(program, table, chain, rule, "-I")
    for table, chain, rule in felix_rules.appended():
        _ensure(program, table, chain, rule, "-A")


def _forget(program: str, family: int, pods: list[Endpoint]) -> None:
    """Chains and sets of pods that are gone, now that nothing refers to them."""
    saved = _output([f"{program}-save", "-t", "filter"])
    there = {line[1:].split()[0] for line in saved.splitlines() if line.startswith(":cali-")}
    wanted = felix_rules.chains(family, pods)
    gone = sorted(name for name in there if name.startswith(felix_rules.OF_PODS) and name not in wanted)
    if gone:
        lines = ["*filter", *(f":{n} - [0:0]" for n in gone), *(f"-X {n}" for n in gone), "COMMIT", ""]
        _run([f"{program}-restore", "--noflush", "-w"], "\n".join(lines))
    kept = {felix_rules.set_name(family, pod) for pod in pods}
    for name in _output(["ipset", "list", "-n"]).split():
        if name.startswith(f"{felix_rules.SETS[family]}s:") and name not in kept:
            _run(["ipset", "destroy", name], "")


def flannel(backend: Backend, family: int, network: str, subnet: str, *, forward: bool = True) -> None:
    """flanneld's. Raises CalledProcessError."""
    if backend == "nftables":
        _run(["nft", "-f", "-"], flannel_rules.nft_script(family, network, subnet))
        return
    program = _program(backend, family)
    text = flannel_rules.restore(family, network, subnet, forward=forward)
    _run([f"{program}-restore", "--noflush", "-w"], text)
    for table, chain, rule in flannel_rules.HOOKS if forward else flannel_rules.HOOKS[:1]:
        _ensure(program, table, chain, rule, "-A")


def has_flannel(backend: Backend, family: int) -> bool:
    """Whether all of flanneld's rules are there: it looks every five seconds, and writes what is missing."""
    if backend == "nftables":
        ip, name = ("ip", "flannel-ipv4") if family == 4 else ("ip6", "flannel-ipv6")
        return _run(["nft", "list", "table", ip, name], "", check=False) == 0
    saved = _output([f"{_program(backend, family)}-save"])
    return saved.count("-A FLANNEL-POSTRTG ") == flannel_rules.MASQUERADING and "-j FLANNEL-POSTRTG" in saved


def remove_flannel(backend: Backend, family: int) -> None:
    """What flanneld up to 0.26 does a second after SIGTERM (flannel#2237). FLANNEL-FWD stays: it looks for it
    in the wrong table.
    """
    if backend == "nftables":
        ip, name = ("ip", "flannel-ipv4") if family == 4 else ("ip6", "flannel-ipv6")
        _run(["nft", "delete", "table", ip, name], "", check=False)
        return
    program = _program(backend, family)
    table, chain, rule = flannel_rules.HOOKS[0]
    _run([program, "-w", "-t", table, "-D", chain, *_words(rule)], "", check=False)
    _run([program, "-w", "-t", "nat", "-F", "FLANNEL-POSTRTG"], "", check=False)
    _run([program, "-w", "-t", "nat", "-X", "FLANNEL-POSTRTG"], "", check=False)


def _program(backend: Backend, family: int) -> str:
    return f"{'ip6tables' if family == 6 else 'iptables'}-{backend}"


def _ensure(program: str, table: str, chain: str, rule: str, how: str) -> None:
    words = _words(rule)
    if _run([program, "-w", "-t", table, "-C", chain, *words], "", check=False) != 0:
        _run([program, "-w", "-t", table, how, chain, *words], "")


def _words(rule: str) -> list[str]:
    import shlex

    return shlex.split(rule)


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


def _run(command: Sequence[str], given: str, *, check: bool = True) -> int:
    done = subprocess.run(command, input=given, text=True, capture_output=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{given}")
    return done.returncode
