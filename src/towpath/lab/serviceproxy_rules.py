"""The table ``inet towpath-lab-proxy``: Services as elements of maps and one small chain a port. Pure.

What kube-proxy's nftables mode does, in as few rules as its semantics need. NAT is at kube-proxy's own
priorities (-100 and 100) and marks with its bit, because others (Towpath's rules) are told to expect those.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from towpath.lab.controllers.hashing import content_hash
from towpath.lab.controllers.objects_core import EndpointSlice, Service, ServicePort
from towpath.lab.serviceproxy_backends import (
    Address,
    Backend,
    Backends,
    backends,
    cluster_ips,
    external_ips,
    families,
)
from towpath.model.net import Family, Net
from towpath.model.nft import Hook, Key, NftChain, NftSet, NftTable

TABLE = "towpath-lab-proxy"
MARK = 0x4000
_PORT = ("inet_proto", "inet_service")
_VERDICT = ("verdict",)


def _sets(family: Family) -> tuple[NftSet, ...]:
    addr = f"ipv{family}_addr"
    return (
        NftSet(name=f"service{family}", key=(addr, *_PORT), data=_VERDICT),
        NftSet(name=f"nodeport{family}", key=_PORT, data=_VERDICT),
        NftSet(name=f"refuse{family}", key=(addr, *_PORT), data=_VERDICT),
        NftSet(name=f"refuse_port{family}", key=_PORT, data=_VERDICT),
        NftSet(name=f"cluster_ip{family}", key=(addr,)),
        NftSet(name=f"hairpin{family}", key=(addr, addr)),
        NftSet(name=f"pod_net{family}", key=(addr,), interval=True),
    )


SETS: dict[str, NftSet] = {s.name: s for s in (*_sets(4), *_sets(6))}


class Fragment(msgspec.Struct, frozen=True):
    """What one Service adds to the table."""

    elements: dict[str, dict[Key, Key]] = {}
    chains: tuple[NftChain, ...] = ()


def fragment(
    service: Service, slices: Iterable[EndpointSlice], node: str, pod_nets: Iterable[Net]
) -> Fragment:
    """The part of one Service on ``node``, with all its EndpointSlices."""
    slices = list(slices)
    guarded = {net.version for net in pod_nets}
    elements: dict[str, dict[Key, Key]] = {}
    chains: list[NftChain] = []
    for family in families(service):
        for address in _of(family, cluster_ips(service)):
            elements.setdefault(f"cluster_ip{family}", {})[(address,)] = ()
        for port in service.spec.ports or ():
            found = backends(port, family, slices, node)
            build = _Port(service, port, family, found, family in guarded)
            chains += build.chains()
            for name, members in build.elements().items():
                elements.setdefault(name, {}).update(members)
    return Fragment(elements, tuple(chains))


class _Port:
    """One port of one Service in one family."""

    def __init__(
        self, service: Service, port: ServicePort, family: Family, found: Backends, guarded: bool
    ) -> None:
        self._service, self._port, self._family = service, port, family
        self._found, self._guarded = found, guarded
        self._ip = "ip" if family == 4 else "ip6"
        meta = service.metadata
        digest = content_hash([meta.namespace, meta.name, port.protocol, port.port, family], 6)
        self._id = f"{meta.namespace}.{meta.name}"[:80] + f"-{digest}"

    def chains(self) -> list[NftChain]:
        """``svc-``: to the cluster address. ``ext-``: from outside the cluster. Empty ones are not made."""
        made = []
        if inside := self._inside():
            masquerade = (
                [f"{self._ip} saddr != @pod_net{self._family} jump mark_masq"] if self._guarded else []
            )
            made.append(NftChain(name=f"svc-{self._id}", rules=(*masquerade, self._dnat(inside))))
        if self._exposed() and self._outside():
            made.append(NftChain(name=f"ext-{self._id}", rules=tuple(self._external())))
        if self._needs_all():
            made.append(NftChain(name=f"all-{self._id}", rules=(self._dnat(self._found.cluster),)))
        return made

    def elements(self) -> dict[str, dict[Key, Key]]:
        """Map entries that lead to the chains, or to a refusal where nothing serves."""
        family, service = self._family, self._service
        proto, number = self._port.protocol.lower(), self._port.port
        made: dict[str, dict[Key, Key]] = {}
        for address in _of(family, cluster_ips(service)):
            key: Key = (address, proto, number)
            if self._inside():
                made.setdefault(f"service{family}", {})[key] = (f"goto svc-{self._id}",)
            elif self._found.cluster:  # somebody serves, but not here, and here is where it must be
                made.setdefault(f"refuse{family}", {})[key] = ("drop",)
        refusal: Key = ("drop",) if self._found.cluster else ("goto refuse",)
        for address in _of(family, external_ips(service)):
            key = (address, proto, number)
            if self._outside():
                made.setdefault(f"service{family}", {})[key] = (f"goto ext-{self._id}",)
            if not self._served_outside():
                made.setdefault(f"refuse{family}", {})[key] = refusal
        if self._port.node_port:
            if self._outside():
                made[f"nodeport{family}"] = {(proto, self._port.node_port): (f"goto ext-{self._id}",)}
            if not self._served_outside():
                made[f"refuse_port{family}"] = {(proto, self._port.node_port): refusal}
        local = {b.address for b in (*self._found.cluster, *self._found.local) if b.local}
        if local:
            made[f"hairpin{family}"] = {(a, a): () for a in local}
        return made

    def _exposed(self) -> bool:
        return bool(self._port.node_port or _of(self._family, external_ips(self._service)))

    def _inside(self) -> tuple[Backend, ...]:
        """Backends of traffic to the cluster address."""
        local = self._service.spec.internal_traffic_policy == "Local"
        return self._found.local if local else self._found.cluster

    def _local_only(self) -> bool:
        return self._service.spec.external_traffic_policy == "Local"

    def _outside(self) -> tuple[Backend, ...]:
        """Backends of any traffic to a node port or external address: pods and the node itself reach all."""
        return self._found.cluster

    def _served_outside(self) -> bool:
        """Traffic that comes from beyond the cluster finds a backend here."""
        return bool(self._found.local if self._local_only() else self._found.cluster)

    def _needs_all(self) -> bool:
        return self._exposed() and bool(self._outside())

    def _external(self) -> list[str]:
        """With policy Local the client's address is kept, so only local backends may answer it."""
        if not self._local_only():
            return ["jump mark_masq", f"goto all-{self._id}"]
        rules = []
        if self._guarded:
            rules.append(f"{self._ip} saddr @pod_net{self._family} goto all-{self._id}")
        rules.append("fib saddr type local jump mark_masq")
        rules.append(f"fib saddr type local goto all-{self._id}")
        return [*rules, self._dnat(self._found.local)] if self._found.local else rules

    def _dnat(self, chosen: Sequence[Backend]) -> str:
        """Translate to one of ``chosen``: by chance, or by the client's address if it is to stay with one."""
        head = f"meta l4proto {self._port.protocol.lower()} dnat {self._ip} to"
        if len(chosen) == 1:
            address, number = chosen[0].address, chosen[0].port
            return f"{head} {address}:{number}" if self._family == 4 else f"{head} [{address}]:{number}"
        pick = f"numgen random mod {len(chosen)}"
        if self._service.spec.session_affinity == "ClientIP":
            pick = f"jhash {self._ip} saddr mod {len(chosen)} seed 0x746f7770"
        listed = ", ".join(f"{i} : {b.address} . {b.port}" for i, b in enumerate(chosen))
        return f"{head} {pick} map {{ {listed} }}"


def _of(family: Family, addresses: Iterable[Address]) -> list[Address]:
    return [a for a in addresses if a.version == family]


def proxy_table(fragments: Mapping[str, Fragment], pod_nets: Iterable[Net]) -> NftTable:
    """The whole table. Of two Services that claim one key, the first by name has it."""
    elements: dict[str, dict[Key, Key]] = {name: {} for name in SETS}
    chains = {chain.name: chain for chain in STATIC}
    for net in pod_nets:
        elements[f"pod_net{net.version}"][(net,)] = ()
    for key in sorted(fragments):
        for name, members in fragments[key].elements.items():
            elements[name] = {**members, **elements[name]}
        chains |= {chain.name: chain for chain in fragments[key].chains}
    sets = {name: replace(decl, elements=elements[name]) for name, decl in SETS.items()}
    return NftTable(name=TABLE, sets=sets, chains=chains)


_SERVICES = (
    "ip daddr . meta l4proto . th dport vmap @service4",
    "ip6 daddr . meta l4proto . th dport vmap @service6",
    "ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @nodeport4",
    "ip6 daddr != ::1 fib daddr type local meta l4proto . th dport vmap @nodeport6",
)
# What reaches these with a Service's address was not translated: nothing serves it. Refused, not sent to the
# default route, where it would come back.
_REFUSALS = (
    "ip daddr . meta l4proto . th dport vmap @refuse4",
    "ip6 daddr . meta l4proto . th dport vmap @refuse6",
    "meta nfproto ipv4 fib daddr type local meta l4proto . th dport vmap @refuse_port4",
    "meta nfproto ipv6 fib daddr type local meta l4proto . th dport vmap @refuse_port6",
    "ip daddr @cluster_ip4 goto refuse",
    "ip6 daddr @cluster_ip6 goto refuse",
)
_POSTROUTING = (
    "ip saddr . ip daddr @hairpin4 ct status dnat masquerade fully-random",
    "ip6 saddr . ip6 daddr @hairpin6 ct status dnat masquerade fully-random",
    f"meta mark & 0x{MARK:08x} == 0x{MARK:08x} goto masq",
)
_FILTERED: tuple[Literal["input", "forward", "output"], ...] = ("input", "forward", "output")
STATIC: tuple[NftChain, ...] = (
    NftChain(name="mark_masq", rules=(f"meta mark set meta mark | 0x{MARK:08x}",)),
    NftChain(
        name="masq",
        rules=(f"meta mark set meta mark & 0x{0xFFFFFFFF ^ MARK:08x}", "masquerade fully-random"),
    ),
    # A reset, where kube-proxy sends an ICMP error: on one machine that comes while connect() still holds the
    # socket's lock, is dropped for that (LockDroppedIcmps), and the caller waits a second for his next SYN.
    NftChain(name="refuse", rules=("meta l4proto tcp counter reject with tcp reset", "counter reject")),
    NftChain(name="refusals", rules=_REFUSALS),
    NftChain(name="services", rules=_SERVICES),
    NftChain(
        name="nat_prerouting",
        hook=Hook(type="nat", hook="prerouting", priority=-100),
        rules=("jump services",),
    ),
    NftChain(
        name="nat_output", hook=Hook(type="nat", hook="output", priority=-100), rules=("jump services",)
    ),
    NftChain(
        name="nat_postrouting", hook=Hook(type="nat", hook="postrouting", priority=100), rules=_POSTROUTING
    ),
    *(
        NftChain(
            name=f"filter_{hook}",
            hook=Hook(
                type="filter", hook=hook, priority=-80
            ),  # output: after all translation, its own and others'
            rules=("ct state new jump refusals",),
        )
        for hook in _FILTERED
    ),
)
