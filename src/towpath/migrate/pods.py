"""Canal's running pods as attachments: host-local's leases, the kernel's links and routes, and whose they
are.

A lease without a link is leaked (host-local frees nothing by itself): it is left behind and named. A link
without a lease, or one of which nobody can tell whose it is, cannot be taken over: our firewall would not
know it, and drop.
"""

from collections.abc import Iterable, Mapping

import msgspec

from towpath.desired.names import POD_PREFIX, host_ifname
from towpath.desired.names import ifb_name as our_ifb
from towpath.ipam.host_local import HostLocalLease, HostLocalTree
from towpath.model.attachment import Attachment, Bandwidth, PodRef, PortMapping
from towpath.model.finding import Finding
from towpath.model.net import Addr, Shaper, Veth
from towpath.model.state import NetState

_DEFAULT_IFNAME = "eth0"
_NO_IDEA = 1 << 30


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a container is: ``netns`` as the runtime gave it, may be empty."""

    pod: PodRef
    netns: str = ""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Who pods are: ``containers`` by ID (libcni's cache), ``pods`` those of this node as the API has
    them.
    """

    containers: dict[str, Identity] = {}
    pods: tuple[PodRef, ...] = ()


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """``attachments`` to take over; ``leaked`` leases that nothing stands behind; ``problems`` forbid it."""

    attachments: tuple[Attachment, ...] = ()
    leaked: tuple[HostLocalLease, ...] = ()
    problems: tuple[Finding, ...] = ()


def adoption(
    tree: HostLocalTree,
    kernel: NetState,
    known: Known,
    ports: Mapping[str, tuple[PortMapping, ...]],
    *,
    network: str,
    boot_id: str,
    adopted: Iterable[Attachment] = (),
) -> Adoption:
    """``network`` is the name that the runtime will use from now on; ``adopted`` need no lease any more."""
    devices = {
        route.dst.network_address: route.dev for route in kernel.routes if _to_pod(route.dst, route.dev)
    }
    by_name = {host_ifname(pod.namespace, pod.name): pod for pod in known.pods}
    attachments, leaked, problems = [], list[HostLocalLease](), list[Finding]()
    for (container, ifname), leases in _by_interface(tree.leases).items():
        dev = next((devices[lease.address] for lease in leases if lease.address in devices), "")
        if dev not in kernel.links:
            leaked += leases
            continue
        there = [lease for lease in leases if devices.get(lease.address) == dev]
        leaked += [lease for lease in leases if lease not in there]
        who = _whose(container, dev, known, by_name)
        if who is None:
            problems.append(_unknown(dev, container, there))
            continue
        addresses = tuple(sorted((lease.address for lease in there), key=lambda a: a.version))
        attachments.append(
            _attachment(
                kernel, dev, container, ifname, addresses, who, ports.get(container, ()), network, boot_id
            )
        )
    had = {att.host_ifname for att in (*attachments, *adopted)} | {finding.object for finding in problems}
    problems += [
        _without_lease(name)
        for name, link in kernel.links.items()
        if name.startswith(POD_PREFIX) and isinstance(link.kind, Veth) and not had & {name, f"link {name}"}
    ]
    return Adoption(attachments=tuple(attachments), leaked=tuple(leaked), problems=tuple(problems))


def _to_pod(dst: object, dev: str) -> bool:
    return dev.startswith(POD_PREFIX) and getattr(dst, "prefixlen", 0) == getattr(dst, "max_prefixlen", -1)


def _by_interface(leases: Iterable[HostLocalLease]) -> dict[tuple[str, str], list[HostLocalLease]]:
    found: dict[tuple[str, str], list[HostLocalLease]] = {}
    for lease in leases:
        found.setdefault((lease.container_id, lease.ifname or _DEFAULT_IFNAME), []).append(lease)
    return found


def _whose(container: str, dev: str, known: Known, by_name: Mapping[str, PodRef]) -> Identity | None:
    """The API's pod whose interface has this name, else what the runtime once said, if the name agrees."""
    cached = known.containers.get(container)
    if (pod := by_name.get(dev)) is not None:
        return Identity(pod=pod, netns=cached.netns if cached else "")
    if cached is not None and host_ifname(cached.pod.namespace, cached.pod.name) == dev:
        return cached
    return None


def _attachment(
    kernel: NetState,
    dev: str,
    container: str,
    ifname: str,
    addresses: tuple[Addr, ...],
    who: Identity,
    ports: tuple[PortMapping, ...],
    network: str,
    boot_id: str,
) -> Attachment:
    link = kernel.links[dev]
    veth = link.kind if isinstance(link.kind, Veth) else Veth(peer="", peer_mac="", peer_mtu=0)
    return Attachment(
        container_id=container,
        ifname=ifname,
        network=network,
        netns=who.netns,
        host_ifname=dev,
        addresses=addresses,
        mac=veth.peer_mac or _neighbour(kernel, dev),
        mtu=link.mtu,
        boot_id=boot_id,
        pod=who.pod,
        ports=ports,
        bandwidth=_limits(kernel, dev),
        adopted=True,
    )


def _neighbour(kernel: NetState, dev: str) -> str:
    return next((n.mac for n in kernel.neighbours if n.dev == dev), "")


def _limits(kernel: NetState, dev: str) -> Bandwidth | None:
    """The bandwidth plugin's limits, or our own in their place: a bucket on the link, and on an ifb
    behind."""
    shapers = {shaper.dev: shaper for shaper in kernel.shapers}
    ifb = next((r.ifb for r in kernel.redirects if r.dev == dev), our_ifb(dev))
    towards, from_pod = shapers.get(dev), shapers.get(ifb)
    if towards is None and from_pod is None:
        return None
    return Bandwidth(
        ingress_rate=towards.rate if towards else 0,
        ingress_burst=_burst(towards),
        egress_rate=from_pod.rate if from_pod else 0,
        egress_burst=_burst(from_pod),
    )


def _burst(shaper: Shaper | None) -> int:
    """A bucket as large as the kernel has them is what became of 2^32-1: nobody had an idea."""
    return 0 if shaper is None or shaper.burst >= _NO_IDEA else shaper.burst


def _unknown(dev: str, container: str, leases: list[HostLocalLease]) -> Finding:
    addresses = ", ".join(str(lease.address) for lease in leases)
    return Finding(
        code="TP7106",
        object=f"link {dev}",
        message=f"nobody knows whose it is (container {container[:12]}, {addresses})",
        fix="delete the pod, or the sandbox (crictl rmp), and begin again",
    )


def _without_lease(dev: str) -> Finding:
    return Finding(
        code="TP7106",
        object=f"link {dev}",
        message="host-local has no lease for it, so that its address and container are not known",
        fix="delete the pod behind it, or the link if there is none (ip link delete), and begin again",
    )
