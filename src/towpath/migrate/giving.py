"""Carries out the steps that are a handback's own."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from towpath.desired.bandwidth import shaping
from towpath.desired.names import ifb_name as our_ifb
from towpath.desired.ruleset import TABLE
from towpath.ipam.host_local import HostLocalFolder, HostLocalLease
from towpath.migrate import conflist, hostports, steps
from towpath.migrate.node import Node, Stopped
from towpath.migrate.ownership import endpoints_in_force, ifb_name, masquerades
from towpath.migrate.plan import Facts
from towpath.model.attachment import Attachment, PortMapping
from towpath.model.finding import Finding
from towpath.model.net import Ifb, Link, Redirect, Shaper
from towpath.model.op import Add, AddLink, DelLink, Op

_EXPORTED = "exported.json"
_NFT_CALICO = {4: ("ip", "calico"), 6: ("ip6", "calico")}
_NFT_FLANNEL = {4: ("ip", "flannel-ipv4"), 6: ("ip6", "flannel-ipv6")}
_PLUGIN_SECONDS = 60


def export_leases(node: Node, facts: Facts, *, final: bool) -> None:
    """Every address a pod of this node has becomes host-local's; what an earlier export wrote and nobody has
    any more is taken back. Raises Stopped, LeaseStoreError, HostLocalBusy.
    """
    folder = HostLocalFolder(node.place.leases_of(facts.conf))
    record = node.place.state_dir / _EXPORTED
    earlier = _read(record)
    with folder.locked():
        leases = node.leases()
        wanted = {
            address: HostLocalLease(address=address, container_id=att.container_id, ifname=att.ifname)
            for att in node.wired()
            for address in att.addresses
        }
        there = {lease.address: lease for lease in folder.read().leases}
        taken = [lease for lease in wanted.values() if _others(there.get(lease.address), lease)]
        if taken:
            raise Stopped(*(_given_out(lease, there[lease.address].container_id) for lease in taken))
        _write(record, {str(lease.address): lease.container_id for lease in wanted.values()} | earlier)
        for address, lease in wanted.items():
            if address not in there:
                folder.write(lease)
        for address, lease in there.items():
            if final and address not in wanted and earlier.get(str(address)) == lease.container_id:
                folder.remove(address)
        families = sorted({address.version for address in leases.last})
        for address in leases.last:
            folder.set_last(families.index(address.version), address)


def _others(there: HostLocalLease | None, wanted: HostLocalLease) -> bool:
    return there is not None and there.container_id != wanted.container_id


def _given_out(lease: HostLocalLease, other: str) -> Finding:
    return Finding(
        code="TP7117",
        object=f"address {lease.address}",
        message=f"is container {lease.container_id[:12]}'s, and host-local has it for {other[:12]}",
        fix="delete the pod of one of the two containers (crictl ps), then give the command again",
    )


def _read(record: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(record.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _write(record: Path, exported: dict[str, str]) -> None:
    partial = record.with_name(f".{record.name}.partial")
    partial.write_bytes(msgspec.json.encode(exported))
    partial.replace(record)


async def await_canal(node: Node, step: steps.AwaitCanal) -> None:
    """Raises Stopped with the pods that Canal's rules do not know."""
    lacking = await node.until(lambda: _unknown_to_canal(node), step.patience)
    if lacking:
        more = f", and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        fix = "see that Canal's pod runs on this node and is ready; then give the command again"
        raise Stopped(
            Finding(code="TP7118", object="Canal's rules", message="; ".join(lacking[:3]) + more, fix=fix)
        )


def _unknown_to_canal(node: Node) -> list[str]:
    tables, nft = node.tables(), node.firewall.nft_tables()
    wired = node.wired()
    found = []
    for family in (4, 6):
        mine = [of for (_, version), of in tables.items() if version == family]
        known = frozenset[str]().union(
            *map(endpoints_in_force, mine), _in_nft(nft.get(_NFT_CALICO[family], ()))
        )
        devs = {att.host_ifname for att in wired if any(a.version == family for a in att.addresses)}
        found += [f"no chains of Felix's for {dev} (IPv{family})" for dev in sorted(devs - known)]
        masqueraded = any(map(masquerades, mine)) or "postrtg" in nft.get(_NFT_FLANNEL[family], ())
        if node.masquerade and devs and not masqueraded:
            found.append(f"no masquerading of flanneld's (IPv{family})")
    return found


def _in_nft(chains: Iterable[str]) -> frozenset[str]:
    """Interfaces with both of Felix's chains in its nftables table."""
    names = frozenset(chains)
    to = {name.removeprefix("filter-cali-tw-") for name in names if name.startswith("filter-cali-tw-")}
    return frozenset(dev for dev in to if f"filter-cali-fw-{dev}" in names)


def restore_ports(node: Node, facts: Facts) -> None:
    """Have the node's own portmap publish every pod's ports. Raises Stopped."""
    serving = node.ports(facts.conf.network)
    for att in node.wired():
        served = {family: of.get(att.container_id, ()) for family, of in serving.items()}
        if any(_unserved(att, ports, family) for family, ports in served.items()):
            _portmap(node, facts, att, partly=any(served.values()))


def _unserved(att: Attachment, served: Iterable[PortMapping], family: int) -> bool:
    """Whether portmap lacks a port of the pod in one of its families: a removal may have got half-way."""
    wanted = {p for p in att.ports if p.host_ip is None or p.host_ip.version == family}
    return any(address.version == family for address in att.addresses) and bool(wanted - set(served))


def _portmap(node: Node, facts: Facts, att: Attachment, *, partly: bool) -> None:
    """What there is ``partly`` is taken away first, or it would be there twice."""
    runtime = {"portMappings": hostports.runtime_config(att.ports)}
    given = conflist.call(facts.conf, "portmap", runtime, _previous(att, facts.conf.version))
    if given is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        _choose_backend(Path(folder), facts.portmap)
        environment = {
            "CNI_CONTAINERID": att.container_id,
            "CNI_NETNS": att.netns or "/proc/self/ns/net",
            "CNI_IFNAME": att.ifname,
            "CNI_PATH": str(node.place.cni_bin),
            "PATH": f"{folder}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        }
        for command in ("DEL", "ADD") if partly else ("ADD",):
            _execute(node.place.cni_bin / "portmap", {**environment, "CNI_COMMAND": command}, given, att)


def _execute(program: Path, environment: dict[str, str], given: str, att: Attachment) -> None:
    try:
        done = subprocess.run(
            [program],
            input=given,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PLUGIN_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Stopped(_portmap_failed(att, str(error))) from error
    if done.returncode != 0:
        raise Stopped(_portmap_failed(att, " ".join((done.stdout + done.stderr).split())))


def _portmap_failed(att: Attachment, words: str) -> Finding:
    name = f"Pod/{att.pod.namespace}/{att.pod.name}" if att.pod else f"container {att.container_id[:12]}"
    fix = "remove the cause, or restore the runtime's portmap; then give the command again"
    return Finding(code="TP7121", object=name, message=f"portmap: {words}", fix=fix)


def _choose_backend(folder: Path, backend: steps.Backend | None) -> None:
    """Have ``iptables`` mean what it meant to portmap when it made its rules; unless known, what it means
    here.
    """
    for family in ("iptables", "ip6tables") if backend else ():
        for suffix in ("", "-save", "-restore"):
            program = shutil.which(f"{family}-{backend}{suffix}")
            if program is not None:
                (folder / f"{family}{suffix}").symlink_to(program)


def _previous(att: Attachment, version: str) -> dict[str, Any]:
    """The result that plugins before it in the list had, as Calico's plugin gives it."""
    return {
        "cniVersion": version,
        "interfaces": [{"name": att.host_ifname}],
        "ips": [
            {"version": str(address.version), "address": f"{address}/{address.max_prefixlen}"}
            for address in att.addresses
        ],
        "dns": {},
    }


async def await_agent(node: Node, step: steps.AwaitAgent) -> None:
    """Until nobody has the lease store open. Raises Stopped."""
    busy = await node.until(lambda: _open_elsewhere(node.place.store), step.patience)
    if busy:
        fix = "look at the agent's log on this node; then give the command again"
        raise Stopped(Finding(code="TP7110", object=str(node.place.store), message=busy[0], fix=fix))


def _open_elsewhere(store: Path) -> list[str]:
    try:
        descriptor = os.open(store, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ["the agent has not let go of it"]
    finally:
        os.close(descriptor)
    return []


def restore_limits(node: Node, facts: Facts) -> None:
    """The bandwidth plugin's device takes the place of ours, without a moment between. Raises
    KernelRefused.
    """
    seen = node.kernel.observe()
    ops: list[Op] = []
    for att in node.wired():
        ours = our_ifb(att.host_ifname)
        theirs = ifb_name(facts.conf.network, att.container_id)
        for shaper in shaping(att).shapers:
            if Redirect(dev=att.host_ifname, ifb=ours) in seen.redirects and shaper.dev == ours:
                limit = Shaper(dev=theirs, rate=shaper.rate, burst=shaper.burst, latency=shaper.latency)
                ops += [AddLink(Link(name=theirs, kind=Ifb(), mtu=att.mtu)), Add(limit)]
                ops += [Add(Redirect(dev=att.host_ifname, ifb=theirs))]
        if ours in seen.links:
            ops.append(DelLink(ours))
    node.kernel.apply(ops)


def remove_table(node: Node) -> None:
    """Raises KernelRefused."""
    node.firewall.delete_table(TABLE)
