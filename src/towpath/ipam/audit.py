"""What is wrong with a node's leases, from three witnesses: the lease store, the kernel and the API server.

Pure. One witness alone frees nothing: a lease is garbage only where the node and the API server say so
independently. The node's proof is that the runtime left it out of its list (CNI GC), or that the host's end
of its link is gone (it dies with the pod's namespace), or that the node was booted since. The API's is that
the pod is gone, has finished, or that another one has its name (by UID).
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from towpath.model.attachment import Attachment
from towpath.model.finding import Finding
from towpath.model.net import Addr, Net

Key = tuple[str, str]
Mend = Literal["", "release", "forget", "relist"]
"""What can be done about it: undo the attachment; forget the address; lease it to the attachment again."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The lease store: ``leased`` whose each address is, ``damaged`` the rows that cannot be read."""

    attachments: tuple[Attachment, ...]
    leased: Mapping[Addr, Key]
    damaged: tuple[Key, ...] = ()


class RunningPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that uses the pod network and is not over, as the API server has it: ``name`` NAMESPACE/NAME.

    ``leaving``: it is being deleted, and may have given its address back already.
    """

    name: str
    uid: str
    node: str
    addresses: tuple[Addr, ...] = ()
    created: str = ""
    leaving: bool = False


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """``links`` of the node; ``routed`` single addresses with a route, and the pod links it leads to;
    ``unlisted`` what the runtime's last list did not have; ``over`` why the API server says that the pod of a
    lease needs it no more, ``lingering`` where it has said so for longer than a DEL takes; ``due`` how many
    seconds of the grace period are left to those that both are against; ``pods`` None without a cluster, or
    while they are not known; ``here`` the node's podCIDRs, ``networks`` the cluster's; ``busy`` what an ADD
    or DEL is working on.
    """

    node: str
    boot_id: str
    links: frozenset[str]
    routed: Mapping[Addr, tuple[str, ...]] = {}
    unlisted: frozenset[Key] = frozenset()
    over: Mapping[Key, str] = {}
    lingering: frozenset[Key] = frozenset()
    due: Mapping[Key, float] = {}
    pods: tuple[RunningPod, ...] | None = None
    here: tuple[Net, ...] = ()
    networks: tuple[Net, ...] = ()
    busy: frozenset[Key] = frozenset()


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A finding about ``addresses``, of the lease ``key`` if there is one, and how it is mended by itself."""

    finding: Finding
    addresses: tuple[Addr, ...]
    key: Key | None = None
    mend: Mend = ""


def gone_here(att: Attachment, boot_id: str, links: frozenset[str], *, unlisted: bool = False) -> str:
    """The node's proof that nobody can be using a lease, empty where there is none."""
    if att.boot_id != boot_id:
        return "it is of a former boot"
    if unlisted:
        return "the runtime does not list its container"
    return "" if att.host_ifname in links else f"its link {att.host_ifname} is gone"


def audit(stored: Stored, evidence: Evidence) -> tuple[Problem, ...]:
    """Everything that is wrong, in the order of the codes. What is under way is left alone."""
    found = [
        *_attached(stored, evidence),
        *_rows(stored, evidence),
        *_strangers(stored, evidence),
        *_elsewhere(stored, evidence),
        *_twice(stored, evidence),
    ]
    return tuple(sorted(found, key=lambda p: (p.finding.code, p.finding.object)))


def _attached(stored: Stored, e: Evidence) -> Iterable[Problem]:
    """Attachments against kernel and API."""
    for att in stored.attachments:
        key = (att.container_id, att.ifname)
        if key in e.busy:
            continue
        here = gone_here(att, e.boot_id, e.links, unlisted=key in e.unlisted)
        over = e.over.get(key, "")
        yield from _whose(att, e, here, over)
        yield from _unleased(att, stored)
        outside = [a for a in att.addresses if _is_astray(a, e)]
        if outside and not (here and over):
            text = f"{_words(outside)} is outside of this node's podCIDRs ({_words(e.here)})"
            fix = "delete the pod when it suits; its next address is of the node's own range"
            yield _problem("TP4016", _name(att), text, fix, outside, key)


def _whose(att: Attachment, e: Evidence, here: str, over: str) -> Iterable[Problem]:
    key, name, words = (att.container_id, att.ifname), _name(att), _words(att.addresses)
    if here and over:
        text = f"{words} is leased to nobody: {over}, and {here}"
        left = f"in {e.due[key]:.0f} s" if e.due.get(key) else "at its next look"
        fix = f"the agent frees it {left}; at once: towpath ipam check --fix"
        yield _problem("TP4010", name, text, fix, att.addresses, key, "release", "warning")
    elif here and att.pod is not None and att.boot_id == e.boot_id:
        text = f"has {words}, but {here}, while the API server says that the pod is there"
        yield _problem("TP4011", name, text, "delete the pod, it has no network", att.addresses, key)
    elif over and not here and key in e.lingering:
        text = f"{over}, but its link {att.host_ifname} is there and keeps {words}"
        fix = f"the runtime owes a DEL: crictl pods; crictl stopp {att.container_id[:13]}; crictl rmp"
        yield _problem("TP4012", name, text, fix, att.addresses, key, "", "warning")


def _unleased(att: Attachment, stored: Stored) -> Iterable[Problem]:
    key = (att.container_id, att.ifname)
    for address in att.addresses:
        owner = stored.leased.get(address)
        if owner is None:
            text = f"has {address}, which is not marked as leased: another pod could get it"
            fix = "towpath ipam check --fix marks it"
            yield _problem("TP4014", _name(att), text, fix, (address,), key, "relist")
        elif owner != key:
            other = next((_name(a) for a in stored.attachments if (a.container_id, a.ifname) == owner), "")
            text = (
                f"and {other or f'container {owner[0][:13]}'} both have {address}; the lease is the latter's"
            )
            yield _problem(
                "TP4015", _name(att), text, f"delete {_name(att)}: it gets another address", (address,), key
            )


def _rows(stored: Stored, e: Evidence) -> Iterable[Problem]:
    """Leases of which no attachment is known: nothing but their address speaks for them."""
    known = {(a.container_id, a.ifname): a for a in stored.attachments}
    seen = {address for pod in e.pods or () for address in pod.addresses}
    for address, key in stored.leased.items():
        att = known.get(key)
        if key in e.busy or (att is not None and address in att.addresses):
            continue
        used = f"a route leads to it ({_words(e.routed[address])})" if address in e.routed else ""
        used = used or ("by the API server a pod has it" if address in seen else "")
        code = "TP4005" if key in stored.damaged else "TP4013"
        why = "its row cannot be read" if code == "TP4005" else "nothing is known of that interface"
        fix = f"look whose it is: {used}" if used else "towpath ipam check --fix frees it"
        text = f"is leased to {key[1]} of container {key[0][:13]}, but {why}"
        yield _problem(code, f"address {address}", text, fix, (address,), key, "" if used else "forget")


def _strangers(stored: Stored, e: Evidence) -> Iterable[Problem]:
    """Addresses that are used here and leased to nobody: by the kernel, else by the API server."""
    told = set()
    attached = {address for att in stored.attachments for address in att.addresses}
    for address, links in sorted(e.routed.items(), key=lambda item: (item[0].version, int(item[0]))):
        if address not in stored.leased and address not in attached:
            told.add(address)
            text = f"a route leads to {_words(links)}, but no lease says whose it is"
            fix = f"find its pod (ip route get {address}) and delete it, or the stale link"
            yield _problem("TP4002", f"address {address}", text, fix, (address,), None, "", "warning")
    for pod in e.pods or ():
        missing = [a for a in pod.addresses if a not in stored.leased and a not in told]
        missing = [a for a in missing if a not in attached and any(a in net for net in e.here)]
        if missing and pod.node == e.node and not pod.leaving:
            text = f"has {_words(missing)} by the API server, but this node leased it to nobody"
            fix = "delete the pod; the address is not given out while a route leads to it"
            yield _problem("TP4017", f"Pod/{pod.name}", text, fix, missing)


def _elsewhere(stored: Stored, e: Evidence) -> Iterable[Problem]:
    """Leased addresses to which a route leads by another link than their owner's: of two pods, too."""
    for att in stored.attachments:
        key = (att.container_id, att.ifname)
        for address in att.addresses:
            others = [link for link in e.routed.get(address, ()) if link != att.host_ifname]
            if not others or key in e.busy or stored.leased.get(address) != key or att.boot_id != e.boot_id:
                continue
            text = f"has {address} at {att.host_ifname}, and a route leads to it by {_words(others)} as well"
            fix = f"find out whose {_words(others)} is and delete it: it has no lease, and may send nothing"
            yield _problem("TP4015", _name(att), text, fix, (address,), key)


def _twice(stored: Stored, e: Evidence) -> Iterable[Problem]:
    """Addresses of two pods, by the API server. The older one keeps it."""
    owners: dict[Addr, list[RunningPod]] = {}
    for pod in e.pods or ():
        for address in () if pod.leaving else pod.addresses:
            owners.setdefault(address, []).append(pod)
    for address, pods in owners.items():
        if len(pods) < 2 or not any(pod.node == e.node for pod in pods):
            continue
        first, *others = sorted(pods, key=lambda pod: (pod.created, pod.name))
        for other in others:
            if other.node != e.node and first.node == e.node and len(others) == 1:
                continue  # told by the other's node, which has to act
            text = f"has {address}, and so has the older Pod/{first.name} on {first.node}"
            fix = f"delete Pod/{other.name}: what is sent to the address is the older pod's"
            yield _problem("TP4015", f"Pod/{other.name}", text, fix, (address,))


def _is_astray(address: Addr, e: Evidence) -> bool:
    """In the cluster's network, but not in this node's part of it: another node may give it out."""
    family = [net for net in e.here if net.version == address.version]
    inside = any(address in net for net in e.networks)
    return inside and bool(family) and not any(address in net for net in family)


def _name(att: Attachment) -> str:
    return f"Pod/{att.pod.namespace}/{att.pod.name}" if att.pod else f"container {att.container_id[:13]}"


def _words(values: Iterable[Addr] | Iterable[Net] | Iterable[str]) -> str:
    return ", ".join(map(str, values))


def _problem(
    code: str,
    about: str,
    message: str,
    fix: str,
    addresses: Iterable[Addr],
    key: Key | None = None,
    mend: Mend = "",
    severity: Literal["info", "warning", "error"] = "error",
) -> Problem:
    finding = Finding(code=code, object=about, message=message, fix=fix, severity=severity)
    return Problem(finding=finding, addresses=tuple(addresses), key=key, mend=mend)
